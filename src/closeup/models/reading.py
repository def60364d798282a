"""What one pass of a backbone gives a dense predictor: maps from within it, the picture's embedding, the dense map."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from closeup._types import DenseMap, Embeddings


class Reading(NamedTuple):
    """The maps, finest first, and the same pass in the joint space, not normalised; None where it has none."""

    levels: list[Float[Tensor, "batch _ _ _"]]
    pooled: Embeddings | None
    dense: DenseMap | None
