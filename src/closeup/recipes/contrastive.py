"""The symmetric contrastive loss of CLIP, in which equal captions are not negatives of each other."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy


def contrastive_loss(
    images: Float[Tensor, "batch dim"],
    texts: Float[Tensor, "batch dim"],
    scale: Float[Tensor, ""],
    same: Bool[Tensor, "batch batch"] | None = None,
) -> Float[Tensor, ""]:
    """Return the mean of both cross-entropies over ``scale * cos(image, text)`` with the diagonal as target.

    Embeddings are L2-normalised. ``same[i, j]`` marks texts i and j as one caption: off the diagonal such
    pairs are taken out of both softmaxes. Without it this is CLIP's loss (arXiv 2103.00020, Figure 3).
    """
    logits = scale * images @ texts.T
    if same is not None:
        itself = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(same & ~itself, float("-inf"))
    target = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


def same_captions(tokens: Int[Tensor, "batch length"]) -> Bool[Tensor, "batch batch"]:
    """Return which pairs of tokenised captions are equal."""
    _, kind = torch.unique(tokens, dim=0, return_inverse=True)
    result: Bool[Tensor, "batch batch"] = kind[:, None] == kind[None, :]
    return result
