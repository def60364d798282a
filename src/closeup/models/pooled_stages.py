"""Towers of stages under an attention pool: how the pool is read, whatever the stages are."""

from __future__ import annotations

from jaxtyping import Float
from open_clip.modified_resnet import AttentionPool2d
from torch import Tensor, nn

from closeup._types import DenseMap, Embeddings, Images
from closeup.models.attention_pool import pool_every_query, pool_no_query, pool_regions
from closeup.models.position_policies import PositionPolicy, position_policy
from closeup.models.routes import Route
from closeup.models.stage_tower import StageTower


class PooledStages(StageTower):
    """Four stages, at strides 4, 8, 16 and 32, and an attention pool over the last.

    The attention pool is the only attention there is, and it has neither residual nor MLP, so a route says how
    the pool is read: ``attention`` keeps every query of it (DenseCLIP), ``value`` (also ``maskclip``) replaces
    it by value and output projection at each cell (MaskCLIP). ``positions`` is how the pool's embedding meets
    maps that are not of the native size (``position_policies``); the value route has no use for it.
    """

    def __init__(
        self, visual: nn.Module, *, dim: int, image_size: tuple[int, int], positions: PositionPolicy | None = None
    ) -> None:
        super().__init__(visual, dim=dim, patch=32, depth=4, image_size=image_size)
        self.positions = positions or position_policy("resize")

    @property
    def attention_pool(self) -> AttentionPool2d:
        """The pool."""
        pool: AttentionPool2d = self.visual.attnpool
        return pool

    def pooled(self, images: Images) -> Embeddings:
        """Return open_clip's ``encode_image`` at any size, from the one query that it needs."""
        features = self.last_map(images)
        return pool_regions(self.attention_pool, features, self.positions_of(features))

    def map_of(self, features: Float[Tensor, "batch channels rows cols"], route: Route) -> DenseMap:
        """Return the attention pool read at every cell, one vector per 32 by 32 square."""
        if self.check_route(route) == "value":
            return pool_no_query(self.attention_pool, features)
        return pool_every_query(self.attention_pool, features, self.positions_of(features))[1]

    def both_of(self, features: Float[Tensor, "batch channels rows cols"], route: Route) -> tuple[Embeddings, DenseMap]:
        """Return the pool's token 0 and the map.

        With the route ``attention`` they are DenseCLIP's ``z_global`` and ``z_map``. With ``value`` token 0, the
        mean of the cells, goes the way of every cell: value and output projection, so it is the mean of the map.
        """
        if self.check_route(route) == "value":
            dense = pool_no_query(self.attention_pool, features)
            return dense.mean(dim=(2, 3)), dense
        return pool_every_query(self.attention_pool, features, self.positions_of(features))

    def positions_of(self, features: Float[Tensor, "batch channels rows cols"]) -> Float[Tensor, "tokens channels"]:
        """Return the pool's positions for a map."""
        return self.positions(self.attention_pool.positional_embedding, (features.shape[2], features.shape[3]))
