"""Masks that overlap become segments that do not: each pixel belongs to the mask that speaks loudest there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from closeup._types import IGNORE, LabelMap, Labels


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """The number of each pixel's segment, IGNORE where there is none, and the word and score of each segment."""

    places: LabelMap
    labels: Labels
    scores: Float[Tensor, " segments"]


def taking_part(probabilities: Float[Tensor, "masks columns"], threshold: float) -> Bool[Tensor, " masks"]:
    """Return which masks may become segments: not those whose best column is the last, no object, nor unsure ones.

    A mask is sure where its best word's probability is above ``threshold``.
    """
    scores, labels = probabilities.max(dim=1)
    return (labels < probabilities.shape[1] - 1) & (scores > threshold)


def without_doubles(
    scores: Float[Tensor, " masks"], planes: Bool[Tensor, "masks height width"], overlap: float
) -> Int[Tensor, " kept"]:
    """Return which masks stay, in their order, when of two with an IoU above ``overlap`` the surer one does.

    Two masks of one thing share its pixels out between them, and then neither keeps enough of its own in ``merge``.
    """
    flat = planes.flatten(1).float()
    shared = flat @ flat.T
    sizes = flat.sum(dim=1)
    union = sizes[:, None] + sizes[None, :] - shared
    double = shared > overlap * union
    kept: list[int] = []
    for row in scores.argsort(descending=True, stable=True).tolist():
        if not bool(double[row, kept].any()):
            kept.append(row)
    return torch.tensor(sorted(kept), dtype=torch.long)


def merge(
    probabilities: Float[Tensor, "masks columns"],
    masks: Iterable[Float[Tensor, "height width"]],
    size: tuple[int, int],
    things: Sequence[bool],
    *,
    threshold: float,
    overlap: float,
) -> Merged:
    """Return the segments of a picture, as MaskFormer merges them.

    A mask that does not take part (``taking_part``) is passed over. A pixel goes to the mask with the largest product
    of score and mask there, the first of equals. A mask that keeps less than ``overlap`` of its pixels is dropped, and
    what it kept belongs to none. Masks of one stuff are one segment, with the best of their scores.

    Args:
        probabilities: Of the words, and last of no object, for each mask.
        masks: Planes, above 0 and up to 1 at a mask's pixels and 0 elsewhere; they are looked at one by one, so that
            they need not exist all at once.
        size: Height and width of the planes.
        things: One mark a word: those that are not marked are stuff.
        threshold: The score that a mask must exceed.
        overlap: The share of its own pixels that a mask must keep.

    Source: Cheng et al., MaskFormer, NeurIPS 2021 (arXiv 2107.06278), panoptic inference. There a mask may win pixels
    that are not its own, at which it is below one half, and they then belong to none.
    """
    scores, labels = probabilities.max(dim=1)
    taking = taking_part(probabilities, threshold).tolist()
    best, winner = torch.zeros(size), torch.full(size, len(scores))
    own = torch.zeros(len(scores))
    for row, mask in enumerate(masks):
        if taking[row]:
            loud = scores[row] * mask
            wins = loud > best
            best, winner = torch.where(wins, loud, best), torch.where(wins, row, winner)
            own[row] = (mask > 0).sum()
    kept = torch.bincount(winner.flatten(), minlength=len(scores) + 1)[:-1]
    stay = ((kept > 0) & (kept >= overlap * own)).nonzero().flatten().tolist()
    return _numbered(winner, scores.tolist(), labels.tolist(), stay, things)


def _numbered(
    winner: LabelMap, scores: Sequence[float], labels: Sequence[int], stay: Sequence[int], things: Sequence[bool]
) -> Merged:
    """Number the masks that stay as segments, those of one stuff alike."""
    numbers = torch.full((len(labels) + 1,), IGNORE)  # the last is that of no mask
    words: list[int] = []
    best: list[float] = []
    stuff: dict[int, int] = {}
    for row in stay:
        word = labels[row]
        number = len(words) if things[word] else stuff.setdefault(word, len(words))
        if number == len(words):
            words.append(word)
            best.append(scores[row])
        best[number] = max(best[number], scores[row])
        numbers[row] = number
    return Merged(numbers[winner], torch.tensor(words, dtype=torch.long), torch.tensor(best))
