"""Masks that overlap become segments that do not: each pixel belongs to the mask that speaks loudest there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from closeup._types import IGNORE, LabelMap, Labels
from closeup.geometry import masks_to_boxes

Window: TypeAlias = tuple[slice, slice]
"""Rows and columns."""
MaskOf: TypeAlias = Callable[[int, Window], Float[Tensor, "_ _"]]
Box: TypeAlias = tuple[int, int, int, int]
"""Top, bottom, left, right."""


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """The number of each pixel's segment, IGNORE where there is none, and the word and score of each segment."""

    places: LabelMap
    labels: Labels
    scores: Float[Tensor, " segments"]


def merge(
    probabilities: Float[Tensor, "masks columns"],
    mask: MaskOf,
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
        mask: Gives the part of a mask in a window by the mask's row, above 0 and up to 1 at its pixels and 0 elsewhere;
            so not all masks need exist at once.
        size: Height and width of the masks.
        things: One mark a word: those that are not marked are stuff.
        threshold: The score that a mask must exceed.
        overlap: The share of its own pixels that a mask must keep.

    Source: Cheng et al., MaskFormer, NeurIPS 2021 (arXiv 2107.06278), panoptic inference. There a mask may win pixels
    that are not its own, at which it is below one half, and they then belong to none; and all masks that keep too
    little are dropped at once: of two for one thing, which share it out between them, none would stay.
    """
    scores, labels = probabilities.max(dim=1)
    taking = ((labels < probabilities.shape[1] - 1) & (scores > threshold)).nonzero().flatten().tolist()
    contest = _Contest(scores, mask, size)
    for row in taking:
        contest.enter(row)
    taking = [row for row in taking if row in contest.windows]
    while taking:
        kept = torch.bincount(contest.winner.flatten(), minlength=len(scores) + 1)[taking]
        shares = kept / contest.own[taking]
        weakest = int(shares.argmin())
        if shares[weakest] >= overlap and kept[weakest] > 0:
            break
        contest.leave(taking.pop(weakest), taking)
    return _numbered(contest.winner, scores.tolist(), labels.tolist(), taking, things)


class _Contest:
    """Who wins each pixel, while masks enter and leave; each is looked at inside its own window alone."""

    def __init__(self, scores: Float[Tensor, " masks"], mask: MaskOf, size: tuple[int, int]) -> None:
        self.scores, self.mask, self.size = scores, mask, size
        self.best, self.winner = torch.zeros(size), torch.full(size, len(scores))
        self.own = torch.zeros(len(scores))
        self.windows: dict[int, Box] = {}

    def enter(self, row: int) -> None:
        """Let a mask take what it is the loudest at; one without a pixel stays away."""
        inside = self.mask(row, (slice(0, self.size[0]), slice(0, self.size[1]))) > 0
        self.own[row] = inside.sum()
        if self.own[row] > 0:
            left, top, right, bottom = map(int, masks_to_boxes(inside[None])[0].tolist())
            self.windows[row] = (top, bottom, left, right)
            self._claim(row, self.windows[row])

    def leave(self, gone: int, others: Sequence[int]) -> None:
        """Give what a mask has to the loudest of others."""
        window = self.windows.pop(gone)
        freed = self.winner == gone
        self.best[freed], self.winner[freed] = 0, len(self.scores)
        for row in others:
            self._claim(row, _shared(window, self.windows[row]), freed)

    def _claim(self, row: int, box: Box, free: Bool[Tensor, "height width"] | None = None) -> None:
        window = (slice(box[0], box[1]), slice(box[2], box[3]))
        loud = self.scores[row] * self.mask(row, window)
        wins = loud > self.best[window]
        if free is not None:
            wins &= free[window]
        self.best[window] = torch.where(wins, loud, self.best[window])
        self.winner[window] = torch.where(wins, row, self.winner[window])


def _shared(one: Box, other: Box) -> Box:
    top, left = max(one[0], other[0]), max(one[2], other[2])
    return top, max(top, min(one[1], other[1])), left, max(left, min(one[3], other[3]))


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
