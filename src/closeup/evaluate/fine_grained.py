"""Fine-grained matching: the rank of the right caption of a region among it and captions that are wrong in a detail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from closeup.errors import InputError, suggest
from closeup.evaluate.recognition import ranks

MEDIANS = ("middle", "fg-clip", "fg-ovd")
"""Which of the sorted ranks is the median: the middle one, or the mean of the middle two; the upper of the middle two,
as in FG-CLIP's code; the one after that, as in FG-OVD's, which is off by one (where there is none, the last)."""

TIES = "against"
"""A wrong caption that scores the same as the right one ranks before it."""


@dataclass(frozen=True, slots=True, eq=False)
class FineGrained:
    """The rank of every item's right caption among it and ``negatives`` wrong ones; 1 is best, all count alike.

    ``left_out`` items have fewer wrong captions and no rank. Without items every mean is NaN.
    """

    ranks: Int[Tensor, " items"]
    negatives: int
    left_out: int = 0

    @property
    def chance(self) -> float:
        """The mean rank of scores drawn at random: (N + 2) / 2.

        FG-CLIP's paper draws (N + 1) / 2, which is the mean of 1 to N; but with N wrong captions the worst rank is
        N + 1. Scores that are all alike have that one, as ties count against.
        """
        return (self.negatives + 2) / 2

    @property
    def mean(self) -> float:
        """The mean rank."""
        return self.ranks.double().mean().item()

    @property
    def top1(self) -> float:
        """The share of items, 0 to 1, whose right caption scores above every wrong one."""
        return (self.ranks == 1).double().mean().item()

    def median(self, which: str = "middle") -> float:
        """Return the median rank, by a name of ``MEDIANS``; InputError for another name."""
        if which not in MEDIANS:
            raise InputError(f"Unknown median {which!r}. {suggest(which, MEDIANS)}")
        count = len(self.ranks)
        if not count:
            return float("nan")
        ordered: list[int] = self.ranks.sort().values.tolist()
        if which == "middle":
            return (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
        return float(ordered[min(count // 2 + (which == "fg-ovd"), count - 1)])

    def summary(self) -> dict[str, float | int | str | None]:
        """Return the figures as a flat mapping fit for JSON; a mean over nothing is None."""
        some = len(self.ranks) > 0
        return {
            "mean_rank": self.mean if some else None,
            "median_rank": self.median() if some else None,
            "top1": self.top1 if some else None,
            "chance_rank": self.chance,
            "negatives": self.negatives,
            "items": len(self.ranks),
            "left_out": self.left_out,
            "ties": TIES,
        }


def rank_captions(scores: Sequence[Float[Tensor, " _"]], negatives: int) -> FineGrained:
    """Return the rank of every item's right caption among it and its first ``negatives`` wrong ones.

    An item's scores are those of its captions, the right one first, then any number of wrong ones in their order. The
    rank is the number of captions that score at least as well as the right one, itself among them: ties count against,
    and so do scores that are not numbers. Items with fewer wrong captions are left out.

    Raises:
        InputError: ``negatives`` is below 1, or an item has no score at all.

    Source: FG-CLIP ``src/eval_util.py``, FG-OVD (arXiv 2311.17518) ``evaluation/ranks.py``. Their benchmark has 10
    wrong captions, for patterns 7 and for transparency 2.
    """
    asked = _asked(scores, negatives)
    if not asked:
        return FineGrained(torch.zeros(0, dtype=torch.int64), negatives, len(scores))
    table = torch.stack([row[: negatives + 1] for row in asked])
    own = torch.zeros(len(table), dtype=torch.int64, device=table.device)
    return FineGrained(ranks(table, own).cpu(), negatives, len(scores) - len(asked))


@dataclass(frozen=True, slots=True)
class ScoreMeans:
    """Means over items: of the right caption's score, of the best wrong one's, and of the mean of the wrong ones."""

    right: float
    best_wrong: float
    wrong: float


def score_means(scores: Sequence[Float[Tensor, " _"]], negatives: int, *, beyond: bool = False) -> ScoreMeans:
    """Return how far apart scores of right and wrong captions lie, over the items that ``rank_captions`` ranks.

    With ``beyond`` the wrong captions beyond the first ``negatives`` take part too, as in FG-CLIP's code. NaN where no
    item has as many.

    Raises:
        InputError: as ``rank_captions``.
    """
    asked = _asked(scores, negatives)
    if not asked:
        return ScoreMeans(float("nan"), float("nan"), float("nan"))
    others = [row[1 : None if beyond else negatives + 1].double() for row in asked]
    means = [torch.stack([row[0].double() for row in asked])]
    means += [torch.stack([row.max() for row in others]), torch.stack([row.mean() for row in others])]
    return ScoreMeans(*(mean.mean().item() for mean in means))


def _asked(scores: Sequence[Tensor], negatives: int) -> list[Tensor]:
    if negatives < 1:
        raise InputError(f"negatives is {negatives}: ask for the rank among 1 wrong caption or more.")
    for index, row in enumerate(scores):
        if not len(row):
            raise InputError(f"item {index} has no scores; give that of the right caption first, then the wrong ones'.")
    return [row for row in scores if len(row) > negatives]
