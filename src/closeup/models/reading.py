"""What one pass through an image tower gives a dense predictor: maps from within it, and the joint space's."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from closeup._types import DenseMap, Embeddings


class Reading(NamedTuple):
    """The maps of one pass, and where the tower has a joint space its embedding and its dense map.

    ``levels`` are the maps from within, finest first, each with its own width. ``pooled`` (the image's embedding,
    DenseCLIP's ``z_global``) and ``dense`` (``z_map``) are in the joint space, neither L2-normalised, and ``None``
    for a backbone without one.
    """

    levels: list[Float[Tensor, "batch _ _ _"]]
    pooled: Embeddings | None
    dense: DenseMap | None
