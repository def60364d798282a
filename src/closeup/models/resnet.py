"""CLIP's ResNets (RN50 and its kin): convolutions, then an attention pool that gives the joint space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn

from closeup._types import Images
from closeup.models.attention_pool import pool_regions
from closeup.models.pooled_stages import PooledStages
from closeup.models.position_policies import PositionPolicy
from closeup.regions.boxes import pool_boxes


class ResNetTower(PooledStages):
    """open_clip's ``ModifiedResNet``; four stages, at strides 4, 8, 16 and 32, and an attention pool."""

    family = "ResNet"
    visual: Any

    def __init__(self, visual: ModifiedResNet, *, dim: int, positions: PositionPolicy | None = None) -> None:
        size = visual.image_size
        image_size = (size, size) if isinstance(size, int) else tuple(size)
        super().__init__(visual, dim=dim, image_size=image_size, positions=positions)

    @classmethod
    def accepts(cls, visual: nn.Module) -> bool:
        """Tell whether ``visual`` is open_clip's ModifiedResNet."""
        return isinstance(visual, ModifiedResNet)

    @classmethod
    def from_visual(cls, visual: nn.Module, dim: int) -> ResNetTower:
        """Wrap open_clip's module; no weight is copied."""
        return cls(visual, dim=dim)

    def stem(self, images: Images) -> Float[Tensor, "batch channels rows cols"]:
        """Return the input of the first stage, at stride 4."""
        stem: Tensor = self.visual.stem(images)
        return stem

    def stages(self) -> Sequence[nn.Module]:
        """Return the four stages."""
        return [self.visual.layer1, self.visual.layer2, self.visual.layer3, self.visual.layer4]

    def c4(self, images: Images) -> Float[Tensor, "batch channels rows cols"]:
        """Return the map that regions are cut from, at stride 16: the output of the third stage ("res4")."""
        return self.features(images, [2])[0]

    def region_embeddings(
        self,
        c4: Float[Tensor, "batch channels rows cols"],
        boxes: Sequence[Float[Tensor, "_ 4"]],
        *,
        bins: int | None = None,
        extents: Sequence[tuple[float, float, float, float]] | None = None,
    ) -> list[Float[Tensor, "_ dim"]]:
        """Encode boxes as RegionCLIP does: RoIAlign on ``c4``, fourth stage, attention pool; one entry an image.

        Boxes are xyxy in cells of ``c4`` (pixels of the canvas / 16), one tensor per image. ``bins`` is the side
        of a RoI: twice the pool's native grid if not given (14 for RN50, 18 for RN50x4), so that the fourth
        stage gives that grid and the positions fit as they are. ``extents`` is the part of each map that shows
        the image, as in ``pool_boxes``. Not normalised.

        Source: RegionCLIP (arXiv 2112.09106, ``microsoft/RegionCLIP``
        ``detectron2/modeling/roi_heads/clip_roi_heads.py``); the pool computes one query instead of all.
        """
        if bins is None:
            bins = 2 * (self.image_size[0] // self.patch)
        crops = torch.cat(pool_boxes(c4, boxes, bins=bins, extents=extents))
        features = self.visual.layer4(crops)
        embeddings = pool_regions(self.attention_pool, features, self.positions_of(features))
        return list(torch.split(embeddings, [len(each) for each in boxes]))
