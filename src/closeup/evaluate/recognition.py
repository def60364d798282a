"""Region recognition: how often the true word is among the k words that score best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from closeup._types import IGNORE, Labels
from closeup.errors import InputError
from closeup.evaluate._checks import check_ks, check_labels


def ranks(scores: Float[Tensor, "regions words"], labels: Labels) -> Int[Tensor, " regions"]:
    """Return the rank of each region's true word among all words; 1 is the best.

    Ties count against the model: a word that scores the same as the true word ranks before it, and so
    does a score that is not a number. A model that scores every word alike is therefore never right,
    whatever the order of the words. Top-k is ``ranks <= k``.

    Raises:
        InputError: where there is not one label for each region, or a label is no index of a word.

    Where all scores differ this is the ``topk`` of CLIPSelf (``zero_shot.py``); the order of ``topk``
    within a tie is not defined, so there is nothing to agree with.
    """
    _check(scores, labels)
    if bool((labels == IGNORE).any()):
        raise InputError(f"a region labelled {IGNORE} has no true word and so no rank; leave it out first.")
    own = scores.gather(1, labels[:, None].long())
    return scores.shape[1] - (scores < own).sum(dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class Recognition:
    """Counts of a recognition test, and the accuracies that follow from them.

    ``counts`` holds the regions of each class, ``hits`` one row for each k in ``ks``: the regions of
    each class whose true word ranked k or better. Accuracies lie between 0 and 1, and are NaN where
    there is nothing to average. They are float64: CLIPSelf rounds each class to fp16 before it averages
    (``_macc`` in ``zero_shot.py``), which moves a class by up to 2.5e-4 and is not repeated here.
    """

    names: tuple[str, ...]
    ks: tuple[int, ...]
    counts: Int[Tensor, " words"]
    hits: Int[Tensor, "ks words"]

    def per_class(self, k: int = 1) -> Float[Tensor, " words"]:
        """Return the top-k accuracy of every class; NaN for a class without a region."""
        return self._row(k).double() / self.counts.double()

    def macro(self, k: int = 1) -> float:
        """Return the mean of the top-k accuracy over the classes that have a region (mAcc of CLIPSelf)."""
        return self.per_class(k)[self.counts > 0].mean().item()

    def micro(self, k: int = 1) -> float:
        """Return the top-k accuracy over all regions alike (zero-shot accuracy, if regions are whole images)."""
        return (self._row(k).sum().double() / self.counts.sum().double()).item()

    def only(self, classes: Bool[Tensor, " words"]) -> Recognition:
        """Return the part that concerns some classes, such as the things; words of other classes still competed."""
        return Recognition(self.names, self.ks, self.counts * classes, self.hits * classes)

    def summary(self) -> dict[str, float | int | None]:
        """Return the means as a flat mapping fit for JSON; a mean over nothing is None."""
        regions = int(self.counts.sum())
        found: dict[str, float | int | None] = {"regions": regions, "classes": int((self.counts > 0).sum())}
        for k in self.ks:
            found[f"macro_top{k}"] = self.macro(k) if regions else None
            found[f"micro_top{k}"] = self.micro(k) if regions else None
        return found

    def table(self) -> list[dict[str, str | float | int]]:
        """Return one row for each class that has a region: its name, its regions, its accuracies."""
        accuracies = {f"top{k}": self.per_class(k) for k in self.ks}
        return [
            {"name": self.names[i], "regions": int(self.counts[i])}
            | {title: float(values[i]) for title, values in accuracies.items()}
            for i in torch.nonzero(self.counts).flatten().tolist()
        ]

    def _row(self, k: int) -> Int[Tensor, " words"]:
        if k not in self.ks:
            raise InputError(f"top-{k} was not counted, only k in {self.ks}; name it in ks when you create the metric.")
        return self.hits[self.ks.index(k)]


class RegionRecognition:
    """Collects scores batch by batch; keeps one count for each class and k, so memory does not grow.

    ``names`` is the vocabulary in the order of the scores' columns. Regions labelled IGNORE are left
    out. Give it whole images and class names and ``micro`` is zero-shot classification accuracy.

    Raises:
        InputError: where ``names`` or ``ks`` is empty, or a k is below 1.
    """

    def __init__(self, names: Sequence[str], ks: Sequence[int] = (1, 5)) -> None:
        self.names = tuple(names)
        self.ks = tuple(ks)
        if not self.names:
            raise InputError("names is empty; recognition needs at least one word to choose from.")
        check_ks(self.ks)
        self.counts = torch.zeros(len(self.names), dtype=torch.int64)
        self.hits = torch.zeros(len(self.ks), len(self.names), dtype=torch.int64)

    def update(self, scores: Float[Tensor, "regions words"], labels: Labels) -> None:
        """Add the regions of a batch.

        Raises:
            InputError: where scores, labels and vocabulary do not agree in size.
        """
        if scores.shape[1] != len(self.names):
            raise InputError(f"scores hold {scores.shape[1]} words but the vocabulary has {len(self.names)}.")
        _check(scores, labels)
        known = labels != IGNORE
        labels = labels[known].long()
        placed = ranks(scores[known], labels)
        words = len(self.names)
        self.counts += torch.bincount(labels, minlength=words).cpu()
        for row, k in enumerate(self.ks):
            self.hits[row] += torch.bincount(labels[placed <= k], minlength=words).cpu()

    def merge(self, other: RegionRecognition) -> None:
        """Add what another process or shard collected on the same vocabulary.

        Raises:
            InputError: where the two differ in names or ks.
        """
        if (self.names, self.ks) != (other.names, other.ks):
            raise InputError("two recognition metrics can only be merged if their names and ks are the same.")
        self.counts += other.counts
        self.hits += other.hits

    def compute(self) -> Recognition:
        """Return the accuracies of everything added so far."""
        return Recognition(self.names, self.ks, self.counts.clone(), self.hits.clone())


def _check(scores: Tensor, labels: Tensor) -> None:
    if len(scores) != len(labels):
        raise InputError(f"each region needs one label, but there are {len(scores)} regions and {len(labels)} labels.")
    check_labels(labels, scores.shape[1], "labels")
