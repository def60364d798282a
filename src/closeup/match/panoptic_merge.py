"""Masks that overlap become segments that do not: each pixel belongs to the mask that speaks loudest there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from closeup._types import IGNORE, LabelMap, Labels


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """The number of each pixel's segment, IGNORE where there is none, and the word and score of each segment."""

    places: LabelMap
    labels: Labels
    scores: Float[Tensor, " segments"]


def merge(
    probabilities: Float[Tensor, "masks columns"],
    mask: Callable[[int], Float[Tensor, "height width"]],
    size: tuple[int, int],
    things: Sequence[bool],
    *,
    threshold: float,
    overlap: float,
) -> Merged:
    """Return the segments of a picture, nearly as MaskFormer merges masks.

    A mask whose best column is the last, no object, or whose best word is not above ``threshold``, takes no part. A
    pixel goes to the mask with the largest product of score and mask there, the first of equals. While a mask keeps
    less than ``overlap`` of its pixels, the one that keeps the smallest share is dropped, and what it kept goes to the
    others. Masks of one stuff are one segment, with the best of their scores.

    Args:
        probabilities: Of the words, and last of no object, for each mask.
        mask: Gives a mask by its row: above 0 and up to 1 at its pixels and 0 elsewhere. Not all need exist at once.
        size: Height and width of the masks.
        things: One mark a word: those that are not marked are stuff.
        threshold: The score that a mask must exceed.
        overlap: The share of its own pixels that a mask must keep.

    Source: Cheng et al., MaskFormer, NeurIPS 2021 (arXiv 2107.06278), panoptic inference. There a mask may win pixels
    that are not its own, at which it is below one half, and they then belong to none; and all masks that keep too
    little are dropped at once: of two for one thing, which share it out between them, none would stay.
    """
    scores, labels = probabilities.max(dim=1)
    taking = _taking_part(scores, labels, probabilities.shape[1] - 1, threshold)
    everywhere = torch.ones(size, dtype=torch.bool)
    best, winner = torch.zeros(size), torch.full(size, len(scores))
    own = torch.zeros(len(scores))
    for row in taking:
        own[row] = (mask(row) > 0).sum()
    taking = [row for row in taking if own[row] > 0]
    _contest(best, winner, everywhere, taking, scores, mask)
    while taking:
        kept = torch.bincount(winner.flatten(), minlength=len(scores) + 1)[taking]
        shares = kept / own[taking]
        weakest = int(shares.argmin())
        if shares[weakest] >= overlap and kept[weakest] > 0:
            break
        freed = winner == taking.pop(weakest)
        best[freed], winner[freed] = 0, len(scores)
        _contest(best, winner, freed, taking, scores, mask)
    return _numbered(winner, scores.tolist(), labels.tolist(), taking, things)


def _taking_part(scores: Float[Tensor, " masks"], labels: Labels, nothing: int, threshold: float) -> list[int]:
    rows: list[int] = ((labels != nothing) & (scores > threshold)).nonzero().flatten().tolist()
    return rows


def _contest(
    best: Float[Tensor, "height width"],
    winner: LabelMap,
    free: Bool[Tensor, "height width"],
    rows: Sequence[int],
    scores: Float[Tensor, " masks"],
    mask: Callable[[int], Float[Tensor, "height width"]],
) -> None:
    """Give free pixels to the loudest of some masks, in place."""
    if not bool(free.any()):
        return
    loudest, owner = best[free], winner[free]
    for row in rows:
        loud = scores[row] * mask(row)[free]
        wins = loud > loudest
        loudest, owner = torch.where(wins, loud, loudest), torch.where(wins, row, owner)
    best[free], winner[free] = loudest, owner


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
