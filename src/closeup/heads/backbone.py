"""The feature pyramid of a frozen CLIP: four maps from within its tower, brought to four sizes, and a fifth."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from closeup._types import DenseMap, Images
from closeup.errors import ModelError
from closeup.heads.pyramid import VitPyramid
from closeup.models.clip import Clip
from closeup.models.stage_tower import StageTower

Levels: TypeAlias = OrderedDict[str, Tensor]
"""Maps by their number, finest first, each half as large as the one before."""


class ClipLevels(nn.Module):
    """Four maps of a CLIP, finest first, each half as large as the one before.

    The CLIP's image tower is no part of the module: it stays as it is. A plain ViT has all its maps at one size, so
    four blocks are brought to four sizes (``VitPyramid``), the last one as the dense map is made from. A tower of
    stages has four sizes of its own. ``widths`` are the maps' channels, ``strides`` their cells' sides in pixels.

    Raises:
        ModelError: the tower has fewer than four blocks.

    Source: ``wusize/CLIPSelf`` ``F-ViT`` (ViTs alone).
    """

    def __init__(self, clip: Clip, *, blocks: tuple[int, ...] = (), route: str = "value") -> None:
        super().__init__()
        self.clip, self._route = clip, route
        self.blocks = blocks or ((0, 1, 2, 3) if self._staged else tapped(clip.blocks))
        self.widths = self._widths()
        self.spread: nn.Module = nn.Identity() if self._staged else VitPyramid(self.widths[0])
        finest = clip.patch / (8 if self._staged else 4)
        self.strides = [finest * 2**level for level in range(4)]

    def levels(self, images: Images) -> tuple[list[Float[Tensor, "batch _ _ _"]], DenseMap]:
        """Return the four maps, and CLIP's own dense map from the same pass."""
        with torch.no_grad():
            maps, dense = self.clip.features_and_dense(images, self.blocks, route=self._route)
        return list(self.spread(maps)), dense

    @property
    def _staged(self) -> bool:
        return isinstance(self.clip.tower, StageTower)

    def _widths(self) -> list[int]:
        patch = torch.zeros(1, 3, *self.clip.image_size, device=self.clip.device)
        with torch.no_grad():
            return [level.shape[1] for level in self.clip.features(patch, self.blocks)]


class ClipPyramid(ClipLevels):
    """A feature pyramid on a CLIP, which stays as it is; ``strides`` are those of its five levels.

    Raises:
        ModelError: the tower has fewer than four blocks.

    Source: ``wusize/CLIPSelf`` ``F-ViT``; Lin et al., Feature Pyramid Networks (arXiv 1612.03144).
    """

    def __init__(self, clip: Clip, channels: int, *, blocks: tuple[int, ...] = (), route: str = "value") -> None:
        super().__init__(clip, blocks=blocks, route=route)
        self.neck = FeaturePyramidNetwork(
            self.widths, channels, extra_blocks=LastLevelMaxPool(), norm_layer=nn.BatchNorm2d
        )
        self.strides = [*self.strides, 2 * self.strides[-1]]

    def forward(self, images: Images) -> tuple[Levels, DenseMap]:
        """Return the five levels, and CLIP's own dense map from the same pass."""
        maps, dense = self.levels(images)
        levels = self.neck(OrderedDict(zip("0123", maps, strict=True)))
        return OrderedDict((name, level.float()) for name, level in levels.items()), dense


def tapped(depth: int) -> tuple[int, int, int, int]:
    """Return four blocks: 3, 5, 7, 11 of 12 and 6, 10, 14, 23 of 24, as the official ones."""
    if depth < 4:
        raise ModelError(f"The tower has {depth} blocks, and a pyramid is made from four of them.")
    first, second, third = (int(depth / 4 + step * depth / 6) for step in range(3))
    return first, second, third, depth - 1
