"""Losses of detectors whose classes are words: RegionCLIP's two cross-entropies, F-ViT's, and the box loss."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

FOCUS = 0.5
"""The power of ``1 - p`` in RegionCLIP's transfer to COCO (``configs/COCO-InstanceSegmentation/CLIP_fast_rcnn_*``)."""


def focal_cross_entropy(
    logits: Float[Tensor, "regions classes"],
    labels: Int[Tensor, " regions"],
    *,
    background_weight: float = 0.2,
    focus: float = FOCUS,
) -> Float[Tensor, ""]:
    """Return ``mean_r w_r CE_r (1 - p_r)^focus`` over all regions, ``p_r`` the probability of the right class.

    The last class is the background, whose regions weigh ``background_weight`` and all others 1. The mean is plain.

    Source: ``microsoft/RegionCLIP`` ``modeling/roi_heads/fast_rcnn.py`` (focal_loss), for COCO.
    """
    losses = cross_entropy(logits, labels, reduction="none")
    weights = torch.where(labels == logits.shape[1] - 1, background_weight, 1.0)
    # p is 1 to rounding where a region is learned by heart; the power's slope would be infinite there.
    missed = (1 - (-losses).exp()).clamp(min=torch.finfo(losses.dtype).eps)
    return (weights * losses * missed**focus).sum() / max(len(labels), 1)


def weighted_cross_entropy(
    logits: Float[Tensor, "regions classes"], labels: Int[Tensor, " regions"], *, background_weight: float = 0.8
) -> Float[Tensor, ""]:
    """Return the cross-entropy with the last class, the background, at ``background_weight``: a weighted mean.

    It is divided by the sum of the weights, unlike ``focal_cross_entropy``. Zero where there is no region.

    Source: ``microsoft/RegionCLIP`` ``modeling/roi_heads/fast_rcnn.py``, for LVIS.
    """
    if not len(labels):
        return logits.sum()
    weights = logits.new_ones(logits.shape[1])
    weights[-1] = background_weight
    return cross_entropy(logits, labels, weights)


def class_weighted_cross_entropy(
    logits: Float[Tensor, "regions classes"],
    labels: Int[Tensor, " regions"],
    class_weights: Float[Tensor, " classes"],
    region_weights: Float[Tensor, " regions"] | None = None,
    *,
    count: float | None = None,
) -> Float[Tensor, ""]:
    """Return the cross-entropy in which classes of weight 0, the novel ones, do not exist.

    Their logits become minus infinity, so that no region is told from them, and a region with the label of one has no
    loss. Each region's loss is multiplied by the weight of its class and its own; the sum is divided by ``count``, the
    number of regions unless given.

    Source: ``wusize/CLIPSelf`` ``F-ViT/models/custom_losses.py``, where a region with a novel label is NaN.
    """
    absent = class_weights < 1e-5
    lost = absent[labels]
    known = labels.masked_fill(lost, int(class_weights.argmax()))
    losses = cross_entropy(logits.masked_fill(absent, float("-inf")), known, class_weights, reduction="none")
    losses = losses.masked_fill(lost, 0.0)
    if region_weights is not None:
        losses = losses * region_weights
    return losses.sum() / (max(len(labels), 1) if count is None else count)


def box_loss(
    deltas: Float[Tensor, "regions 4"], targets: Float[Tensor, "regions 4"], foreground: Int[Tensor, " objects"]
) -> Float[Tensor, ""]:
    """Return the L1 distance of the ``foreground`` rows' deltas from their targets, divided by all rows.

    Source: ``microsoft/RegionCLIP`` ``modeling/roi_heads/fast_rcnn.py`` (box_reg_loss, beta 0).
    """
    return (deltas[foreground] - targets[foreground]).abs().sum() / max(len(deltas), 1)
