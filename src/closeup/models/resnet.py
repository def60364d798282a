"""CLIP's ResNets (RN50 and its kin): convolutions, then an attention pool that gives the joint space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from torch import Tensor, nn

from closeup._types import DenseMap, Embeddings, Images
from closeup.models.attention_pool import pool_every_query, pool_no_query, pool_regions
from closeup.models.position_policies import PositionPolicy, position_policy
from closeup.models.routes import Route
from closeup.models.stage_tower import StageTower
from closeup.regions.boxes import pool_boxes


class ResNetTower(StageTower):
    """open_clip's ``ModifiedResNet``; four stages, at strides 4, 8, 16 and 32.

    The attention pool is the only attention there is, and it has neither residual nor MLP, so a route says how
    the pool is read: ``attention`` keeps every query of it (DenseCLIP), ``value`` (also ``maskclip``) replaces
    it by value and output projection at each cell (MaskCLIP). ``positions`` is how the pool's embedding meets
    maps that are not of the native size (``position_policies``); the value route has no use for it.
    """

    family = "ResNet"
    visual: Any

    def __init__(self, visual: ModifiedResNet, *, dim: int, positions: PositionPolicy | None = None) -> None:
        size = visual.image_size
        image_size = (size, size) if isinstance(size, int) else tuple(size)
        super().__init__(visual, dim=dim, patch=32, depth=4, image_size=image_size)
        self.positions = positions or position_policy("resize")

    @classmethod
    def accepts(cls, visual: nn.Module) -> bool:
        """Tell whether ``visual`` is open_clip's ModifiedResNet."""
        return isinstance(visual, ModifiedResNet)

    @classmethod
    def from_visual(cls, visual: nn.Module, dim: int) -> ResNetTower:
        """Wrap open_clip's module; no weight is copied."""
        return cls(visual, dim=dim)

    def pooled(self, images: Images) -> Embeddings:
        """Return open_clip's ``encode_image`` at any size, from the one query that it needs."""
        features = self.last_map(images)
        return pool_regions(self._pool, features, self._positions(features))

    def map_of(self, features: Float[Tensor, "batch channels rows cols"], route: Route) -> DenseMap:
        """Return the attention pool read at every cell, one vector per 32 by 32 square."""
        if self.check_route(route) == "value":
            return pool_no_query(self._pool, features)
        return pool_every_query(self._pool, features, self._positions(features))[1]

    def both_of(self, features: Float[Tensor, "batch channels rows cols"], route: Route) -> tuple[Embeddings, DenseMap]:
        """Return the pool's token 0 and the map.

        With the route ``attention`` they are DenseCLIP's ``z_global`` and ``z_map``. With ``value`` token 0, the
        mean of the cells, goes the way of every cell: value and output projection, so it is the mean of the map.
        """
        if self.check_route(route) == "value":
            dense = pool_no_query(self._pool, features)
            return dense.mean(dim=(2, 3)), dense
        return pool_every_query(self._pool, features, self._positions(features))

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
        embeddings = pool_regions(self._pool, features, self._positions(features))
        return list(torch.split(embeddings, [len(each) for each in boxes]))

    @property
    def _pool(self) -> AttentionPool2d:
        return self.visual.attnpool

    def _positions(self, features: Float[Tensor, "batch channels rows cols"]) -> Float[Tensor, "tokens channels"]:
        return self.positions(self._pool.positional_embedding, (features.shape[2], features.shape[3]))
