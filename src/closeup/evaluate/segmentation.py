"""Semantic segmentation: one confusion matrix over all pixels of a data set, and the means that follow from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from closeup._types import IGNORE
from closeup.errors import InputError, suggest
from closeup.evaluate._checks import check_labels

Absent: TypeAlias = Literal["ignore", "zero"]
"""What a class that is predicted somewhere but true nowhere does to the mean IoU: see ``mean_iou``."""

Confusion: TypeAlias = Int[Tensor, "words words_and_none"]
"""Pixels by true class (rows) and predicted class (columns); the last column counts predictions of IGNORE."""


def confusion_matrix(predicted: Int[Tensor, "*pixels"], truth: Int[Tensor, "*pixels_too"], words: int) -> Confusion:
    """Count pixels by true and predicted class.

    Pixels whose truth is IGNORE are left out. A prediction of IGNORE on any other pixel is a miss: it
    adds to its row, in the last column.

    Raises:
        InputError: where the shapes differ, or a value is neither IGNORE nor an index below ``words``.
    """
    if predicted.shape != truth.shape:
        raise InputError(
            f"prediction and truth must have one shape, but they are {tuple(predicted.shape)} and "
            f"{tuple(truth.shape)}; resize the scores to the original image before the argmax."
        )
    check_labels(predicted, words, "predicted labels")
    check_labels(truth, words, "true labels")
    known = truth != IGNORE
    rows, columns = truth[known].long(), predicted[known].long()
    columns = torch.where(columns == IGNORE, words, columns)
    return torch.bincount(rows * (words + 1) + columns, minlength=words * (words + 1)).view(words, words + 1)


def per_class_iou(confusion: Confusion) -> Float[Tensor, " words"]:
    """Return the intersection over union of every class; NaN for a class neither true nor predicted anywhere."""
    right, true, predicted = _totals(confusion)
    return right / (true + predicted - right)


def mean_iou(confusion: Confusion, absent: Absent = "ignore", among: Bool[Tensor, " words"] | None = None) -> float:
    """Return the mean IoU over classes, pooled: intersections and unions are summed over all images first.

    With ``among`` the mean is over these classes alone; pixels of the others still count against them.

    ``absent="ignore"`` averages over the classes that are true somewhere. ``absent="zero"`` also counts
    every class that is predicted somewhere but true nowhere, with an IoU of 0: OVSeg's rule
    (``generalized_sem_seg_evaluation.py``), which is harder where the vocabulary is larger than the
    data, as in ADE20K-847 and PASCAL Context-459. NaN where no class counts.

    Raises:
        InputError: where ``absent`` is neither.

    This is not the mean over images of each image's IoU (``torchmetrics.segmentation.MeanIoU``).
    """
    check_absent(absent)
    _, true, predicted = _totals(confusion)
    counted = true > 0 if absent == "ignore" else true + predicted > 0
    if among is not None:
        counted = counted & among
    return per_class_iou(confusion)[counted].mean().item()


def check_absent(absent: str) -> None:
    """Raise InputError unless this is a rule for classes that are predicted somewhere but true nowhere."""
    if absent not in get_args(Absent):
        raise InputError(f"unknown rule for absent classes {absent!r}. {suggest(absent, get_args(Absent))}")


def mean_accuracy(confusion: Confusion) -> float:
    """Return the mean, over the classes that are true somewhere, of the share of their pixels labelled right."""
    right, true, _ = _totals(confusion)
    return (right / true)[true > 0].mean().item()


def pixel_accuracy(confusion: Confusion) -> float:
    """Return the share of all labelled pixels that are right."""
    right, true, _ = _totals(confusion)
    return (right.sum() / true.sum()).item()


def _totals(confusion: Confusion) -> tuple[Tensor, Tensor, Tensor]:
    counts = confusion.double()
    return counts.diagonal(), counts.sum(dim=1), counts[:, :-1].sum(dim=0)


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """The confusion matrix of a data set with the names of its classes."""

    names: tuple[str, ...]
    confusion: Confusion

    def summary(self, absent: Absent = "ignore", novel: Sequence[bool] | None = None) -> dict[str, float | int | None]:
        """Return the means as a flat mapping fit for JSON; a mean over nothing is None.

        Where some classes are marked ``novel``, there is ``miou novel`` and ``miou base`` too.
        """
        pixels = int(self.confusion.sum())
        apart = {}
        if novel is not None and any(novel):
            marks = torch.tensor(list(novel))
            for name, among in (("novel", marks), ("base", ~marks)):
                mean = mean_iou(self.confusion, absent, among)
                apart[f"miou {name}"] = None if math.isnan(mean) else mean
        return {
            "pixels": pixels,
            "classes": int((self.confusion.sum(dim=1) > 0).sum()),
            "miou": mean_iou(self.confusion, absent) if pixels else None,
            **apart,
            "macc": mean_accuracy(self.confusion) if pixels else None,
            "pacc": pixel_accuracy(self.confusion) if pixels else None,
        }

    def table(self) -> list[dict[str, str | float | int]]:
        """Return one row for each class true or predicted somewhere: its name, its true pixels, its IoU."""
        iou, (_, true, predicted) = per_class_iou(self.confusion), _totals(self.confusion)
        seen = torch.nonzero(true + predicted).flatten().tolist()
        return [{"name": self.names[i], "pixels": int(true[i]), "iou": float(iou[i])} for i in seen]


class SemanticSegmentation:
    """Adds up one confusion matrix over label maps of any sizes.

    ``names`` is the vocabulary that the label maps index.

    Raises:
        InputError: where ``names`` is empty.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        if not self.names:
            raise InputError("names is empty; segmentation needs at least one class.")
        self.confusion = torch.zeros(len(self.names), len(self.names) + 1, dtype=torch.int64)

    def update(self, predicted: Int[Tensor, "*pixels"], truth: Int[Tensor, "*pixels_too"]) -> None:
        """Add one image or a batch of images of one size; both maps at the size of the truth.

        Raises:
            InputError: as ``confusion_matrix`` does.
        """
        self.confusion += confusion_matrix(predicted, truth, len(self.names)).cpu()

    def merge(self, other: SemanticSegmentation) -> None:
        """Add what another process or shard collected on the same classes.

        Raises:
            InputError: where the two differ in names.
        """
        if self.names != other.names:
            raise InputError("two segmentation metrics can only be merged if their names are the same.")
        self.confusion += other.confusion

    def compute(self) -> Segmentation:
        """Return the confusion matrix of everything added so far."""
        return Segmentation(self.names, self.confusion.clone())
