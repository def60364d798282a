"""timm's convolutional towers inside open_clip: ConvNeXt and FastViT (MobileCLIP)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from open_clip.timm_model import TimmModel
from timm.models.convnext import ConvNeXt
from timm.models.fastvit import FastVit
from torch import Tensor, nn

from closeup._types import DenseMap, Embeddings, Images
from closeup.errors import ModelError
from closeup.models.routes import Route
from closeup.models.stage_tower import StageTower


class ConvTower(StageTower):
    """A timm trunk of stages, pooled by the mean of its last map.

    The map is the head (norm, projection) at each cell of the last stage: each cell is shown to the head as an
    image of one cell, whose mean is itself. Where the head is linear after the mean (FastViT) the mean of the
    map is the pooled embedding; ConvNeXt's norm stands between, so there it is not.

    There is no attention pool that could be routed, so the routes ``value`` and ``attention`` both mean this
    map. (The last stage of a FastViT attends over the whole image, as all its convolutions do in the end; it
    stays as it was trained.)
    """

    family = "timm convolutional"
    visual: Any

    def __init__(self, visual: TimmModel, *, dim: int) -> None:
        trunk: Any = visual.trunk
        super().__init__(
            visual,
            dim=dim,
            patch=trunk.feature_info[-1]["reduction"],
            depth=len(trunk.stages),
            image_size=tuple(visual.image_size),
        )
        self.trunk = trunk

    @classmethod
    def accepts(cls, visual: nn.Module) -> bool:
        """Tell whether ``visual`` is a ConvNeXt or a FastViT in open_clip's wrapper."""
        return isinstance(visual, TimmModel) and isinstance(visual.trunk, (ConvNeXt, FastVit))

    @classmethod
    def from_visual(cls, visual: nn.Module, dim: int) -> ConvTower:
        """Wrap ``visual``; ModelError where its last map is not pooled by the mean."""
        source: Any = visual
        pool = source.trunk.head.global_pool.pool_type
        if pool != "avg" or hasattr(source.head, "pool"):
            raise ModelError(
                f"This {cls.family} tower cannot be read as a dense map: it pools by {pool or 'a pool of its own'!r}, "
                "not by the mean. Choose a model that pools by the mean."
            )
        return cls(source, dim=dim)

    def pooled(self, images: Images) -> Embeddings:
        """Return open_clip's ``encode_image`` at any size."""
        return self._head(self.last_map(images))

    def map_of(self, features: Float[Tensor, "batch channels rows cols"], route: Route) -> DenseMap:
        """Return the head at each cell, whichever the route."""
        return self._each_cell(features)

    def both_of(self, features: Float[Tensor, "batch channels rows cols"], route: Route) -> tuple[Embeddings, DenseMap]:
        """Return the head on the mean of the last map, and the head at each of its cells."""
        return self._head(features), self._each_cell(features)

    def stem(self, images: Images) -> Float[Tensor, "batch channels rows cols"]:
        """Return the input of the first stage, at stride 4."""
        stem: Tensor = self.trunk.stem(images)
        return stem

    def stages(self) -> Sequence[nn.Module]:
        """Return the stages."""
        return list(self.trunk.stages)

    def after(self, features: Float[Tensor, "batch channels rows cols"]) -> Float[Tensor, "batch _ rows cols"]:
        """Return the last stage's output after what follows it: a norm (some ConvNeXts), a convolution (FastViT)."""
        layer = self.trunk.norm_pre if isinstance(self.trunk, ConvNeXt) else self.trunk.final_conv
        seen: Tensor = layer(features)
        return seen

    def _head(self, features: Float[Tensor, "batch channels rows cols"]) -> Float[Tensor, "batch dim"]:
        embeddings: Tensor = self.visual.head(self.trunk.forward_head(features))
        return embeddings

    def _each_cell(self, features: Float[Tensor, "batch channels rows cols"]) -> Float[Tensor, "batch dim rows cols"]:
        batch, _, rows, cols = features.shape
        cells = features.movedim(1, -1).flatten(0, 2)
        return self._head(cells[:, :, None, None]).view(batch, rows, cols, self.dim).movedim(-1, 1)
