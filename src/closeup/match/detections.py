"""From boxes and scores of every class to the detections of a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import batched_nms

from closeup._types import Boxes, Labels
from closeup.errors import InputError
from closeup.geometry import areas

Objectness = Literal["sigmoid", "logit"]
"""How a proposal's logit takes part in a score: as a probability, or raw, as in RegionCLIP's code."""


@dataclass(frozen=True, slots=True)
class Suppression:
    """How overlapping boxes of one class are thinned out.

    Hard suppression drops a box whose IoU with a better one exceeds ``overlap``. Soft suppression (Bodla et al., ICCV
    2017, arXiv 1704.04503, Gaussian) multiplies its score by ``exp(-IoU^2 / sigma)`` for every better one, and drops it
    below ``floor``.

    Raises:
        InputError: ``overlap`` outside 0 to 1, or ``sigma`` not above 0.
    """

    overlap: float = 0.5
    soft: bool = False
    sigma: float = 0.5
    floor: float = 0.001

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= 1 or not self.sigma > 0:
            raise InputError(
                f"Suppression with overlap {self.overlap} and sigma {self.sigma}: overlap must lie between 0 and 1, "
                "and sigma above 0."
            )


@dataclass(frozen=True, slots=True, eq=False)
class Selected:
    """Detections, best first: scores and labels, and the row of each one's box."""

    rows: Int[Tensor, " detections"]
    labels: Labels
    scores: Float[Tensor, " detections"]


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What is found in one picture, best first: boxes (xyxy, in pixels), labels and scores.

    ``outlines`` are grids over the boxes, the probability of each cell that it is part of the thing; None where no head
    gives them.
    """

    boxes: Boxes
    labels: Labels
    scores: Float[Tensor, " detections"]
    outlines: Float[Tensor, "detections side side"] | None = None

    def __len__(self) -> int:
        """Return the number of detections."""
        return len(self.boxes)


def with_objectness(
    probabilities: Float[Tensor, "regions words"], logits: Float[Tensor, " regions"], how: Objectness = "sigmoid"
) -> Float[Tensor, "regions words"]:
    """Return the geometric mean of each word's probability and of a proposal's objectness.

    "sigmoid" takes the objectness as a probability. "logit" takes the raw logit, as RegionCLIP's code does: scores
    may exceed 1, and a proposal with a negative logit has no score (NaN), so that ``select`` drops it.

    Source: ``microsoft/RegionCLIP`` ``modeling/roi_heads/fast_rcnn.py`` (MULTIPLY_RPN_SCORE).
    """
    objectness = logits.sigmoid() if how == "sigmoid" else logits
    return (probabilities * objectness[:, None]).sqrt()


def select(
    boxes: Boxes | Float[Tensor, "regions words 4"],
    scores: Float[Tensor, "regions words"],
    *,
    threshold: float,
    limit: int,
    suppression: Suppression | None = None,
) -> Selected:
    """Return the best ``limit`` pairs of a box and a word whose score exceeds ``threshold``, thinned out per word.

    A region has one box for all words, or one for each. A row with a score that is not finite is left out, and a box
    that is not finite with its words. Equal scores are in the order of rows, then words.

    Source: the inference of Fast R-CNN, as in ``microsoft/RegionCLIP`` ``modeling/roi_heads/fast_rcnn.py``.
    """
    suppression = suppression or Suppression()
    finite = boxes.isfinite().all(dim=-1)
    usable = (finite if boxes.ndim == 3 else finite[:, None]) & scores.isfinite().all(dim=1, keepdim=True)
    rows, labels = (usable & (scores > threshold)).nonzero(as_tuple=True)
    values, chosen = scores[rows, labels], boxes[rows, labels] if boxes.ndim == 3 else boxes[rows]
    if suppression.soft:
        values = soften(chosen, values, labels, suppression.sigma, suppression.floor)
        kept = (values >= max(suppression.floor, threshold)).nonzero()[:, 0]
    else:
        kept = batched_nms(chosen.float(), values.float(), labels, suppression.overlap)
    best = kept[values[kept].sort(descending=True, stable=True).indices[:limit]]
    return Selected(rows[best], labels[best], values[best])


def soften(
    boxes: Boxes, scores: Float[Tensor, " boxes"], labels: Int[Tensor, " boxes"], sigma: float, floor: float
) -> Float[Tensor, " boxes"]:
    """Return scores as Gaussian soft suppression leaves them, in the order given; 0 where below ``floor``.

    All classes at once: each round takes the best box left of every class and lowers what it overlaps.
    """
    softened = torch.zeros_like(scores)
    if not len(scores):
        return softened
    order = labels.argsort(stable=True)
    counts = torch.unique_consecutive(labels[order], return_counts=True)[1]
    columns = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    places = torch.arange(len(counts), device=order.device).repeat_interleave(counts), columns
    left = scores.new_zeros(len(counts), int(counts.max()))
    left[places] = scores[order]
    table = boxes.new_zeros(*left.shape, 4)
    table[places] = boxes[order]
    done = torch.zeros_like(left)
    while True:
        best, column = left.max(dim=1)
        rows = (best >= floor).nonzero()[:, 0]
        if not len(rows) or not bool((best[rows] > 0).any()):
            break
        chosen = column[rows]
        done[rows, chosen] = best[rows]
        left[rows, chosen] = 0
        left[rows] *= (-_overlaps(table[rows, chosen], table[rows]).square() / sigma).exp()
    softened[order] = done[places]
    return softened


def _overlaps(
    one: Float[Tensor, "classes 4"], many: Float[Tensor, "classes boxes 4"]
) -> Float[Tensor, "classes boxes"]:
    """Return the IoU of one box of every class with many of that class; 0 where both are empty."""
    last, first = torch.minimum(one[:, None, 2:], many[..., 2:]), torch.maximum(one[:, None, :2], many[..., :2])
    shared = (last - first).clamp(min=0).prod(dim=2)
    joined = areas(one)[:, None] + areas(many.flatten(0, 1)).view(shared.shape) - shared
    return torch.where(joined > 0, shared / joined, 0)
