"""The cosine of region embeddings and dense maps with texts."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from closeup._types import DenseMap
from closeup.errors import InputError


def cosine(
    regions: Float[Tensor, "regions dim"], texts: Float[Tensor, "texts text_dim"]
) -> Float[Tensor, "regions texts"]:
    """Return the cosine, -1 to 1, of every region with every text; 0 for an embedding that is all zeros.

    InputError where the two have different dimensions. The wider floating type of the two is used.
    """
    left, right = _prepare(regions, texts)
    return F.normalize(left, dim=1) @ right.T


def cosine_map(maps: DenseMap, texts: Float[Tensor, "texts text_dim"]) -> Float[Tensor, "batch texts rows cols"]:
    """Return the cosine of every place of dense maps with every text, as ``cosine`` does."""
    left, right = _prepare(maps, texts)
    batch, _, rows, cols = maps.shape
    return (right @ F.normalize(left, dim=1).flatten(2)).reshape(batch, len(right), rows, cols)


def check_widths(regions: int, texts: int) -> None:
    """Raise InputError unless embeddings of regions and of texts have as many dimensions."""
    if regions != texts:
        raise InputError(
            f"The regions have {regions} dimensions and the texts {texts}; "
            "they come from different models. Embed both with the same one."
        )


def _prepare(features: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    check_widths(features.shape[1], texts.shape[1])
    kind = torch.promote_types(features.dtype, texts.dtype)
    return features.to(kind), F.normalize(texts.to(device=features.device, dtype=kind), dim=1)
