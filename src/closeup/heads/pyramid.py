"""The pyramid of F-ViT and DenseCLIP: four maps of one size, taken from within a plain ViT, brought to four sizes."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from closeup.errors import InputError

Level = Float[Tensor, "batch width _rows _cols"]


class VitPyramid(nn.Module):
    """Bring maps of blocks 1 to 4 to 4, 2, 1 and half times their size.

    The first by two transposed convolutions of 2 x 2 with a norm and GELU between them, the second by one, the third as
    it is, the fourth by the maximum of 2 x 2 cells. The norm is over the batch; the official one is over all devices.
    With ``norms`` each map first has a norm over all channels and cells of a picture, as DenseCLIP has it.

    Raises:
        InputError: not four maps.

    Source: ``wusize/CLIPSelf`` ``F-ViT/models/evaclip_vit.py`` (CLIPSelf, arXiv 2310.01403);
    ``raoyongming/DenseCLIP`` ``segmentation/denseclip/models.py`` (arXiv 2112.01518).
    """

    def __init__(self, width: int, *, norms: bool = False) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(1, width) if norms else nn.Identity() for _ in range(4))
        self.fourfold: nn.Module = nn.Sequential(
            nn.ConvTranspose2d(width, width, 2, stride=2),
            nn.BatchNorm2d(width),
            nn.GELU(),
            nn.ConvTranspose2d(width, width, 2, stride=2),
        )
        self.twofold = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.halved = nn.MaxPool2d(2)

    def drop_finest(self) -> None:
        """Leave the first map as it is, for heads that have no use for it."""
        self.norms[0], self.fourfold = nn.Identity(), nn.Identity()

    def forward(self, maps: Sequence[Level]) -> list[Level]:
        """Return the four levels, finest first."""
        if len(maps) != 4:
            raise InputError(f"A pyramid is made of the maps of 4 blocks, not {len(maps)}. Name four blocks.")
        maps = [norm(each) for norm, each in zip(self.norms, maps, strict=True)]
        return [self.fourfold(maps[0]), self.twofold(maps[1]), maps[2], self.halved(maps[3])]
