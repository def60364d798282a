"""Average precision of detections by class, and its mean over base and novel classes apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from jaxtyping import Float, Int
from torch import Tensor

from closeup._types import IGNORE
from closeup.errors import InputError

SomeBoxes = Float[Tensor, "_ 4"]

LIMITS = (1, 10, 100)
"""Detections of a picture that count, best first; figures are those of the last."""


@dataclass(frozen=True, slots=True, eq=False)
class DetectionScores:
    """Average precision of every class in 0 to 1, NaN for one without objects.

    ``ap`` is the mean over IoU 0.50 to 0.95, ``ap50`` that at 0.50.
    """

    names: tuple[str, ...]
    ap: Float[np.ndarray, " classes"]
    ap50: Float[np.ndarray, " classes"]
    objects: tuple[int, ...]

    def mean(self, classes: Sequence[bool] | None = None, *, at50: bool = True) -> float:
        """Return the mean over the classes marked (None: all) that have objects; NaN where none has."""
        values = self.ap50 if at50 else self.ap
        chosen = values if classes is None else values[np.array(classes, dtype=bool)]
        known = chosen[~np.isnan(chosen)]
        return float(known.mean()) if len(known) else float("nan")


class AveragePrecision:
    """Gathers pictures' true and found boxes; COCO's rules.

    A true box labelled ``IGNORE`` takes no part. A class without objects has no figure, and detections of it do not
    count anywhere, as in COCO's own code.

    Source: pycocotools' ``COCOeval``, in faster-coco-eval's form, which gives the same figures.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._pictures = 0
        self._truth: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []

    def add(
        self,
        boxes: SomeBoxes,
        labels: Int[Tensor, " _"],
        found: SomeBoxes,
        found_labels: Int[Tensor, " _"],
        scores: Float[Tensor, " _"],
        *,
        crowd: Sequence[bool] | None = None,
    ) -> None:
        """Add a picture: true boxes (xyxy, any unit of length) with labels, and what was found there with scores.

        A true box that is a ``crowd`` may be found any number of times, or not at all.

        Raises:
            InputError: a label is no index of a name, or parts of a picture differ in number.
        """
        self._check(boxes, labels, found, found_labels, scores)
        self._pictures += 1
        crowds = [False] * len(boxes) if crowd is None else list(crowd)
        for box, label, many in zip(boxes.tolist(), labels.tolist(), crowds, strict=True):
            if label != IGNORE:
                number = len(self._truth) + 1
                self._truth.append(self._row(box, label) | {"id": number, "iscrowd": int(many)})
        for box, label, score in zip(found.tolist(), found_labels.tolist(), scores.tolist(), strict=True):
            self._found.append(self._row(box, label) | {"score": score})

    def compute(self) -> DetectionScores:
        """Return the scores of all pictures so far.

        Raises:
            InputError: there is no picture.
        """
        if not self._pictures:
            raise InputError("There is no picture to score. Add some first.")
        count = len(self.names)
        objects = np.bincount([row["category_id"] - 1 for row in self._truth], minlength=count)
        nothing = np.full(count, np.nan)
        if not self._truth:
            return DetectionScores(self.names, nothing, nothing, (0,) * count)
        if not self._found:
            zero = np.where(objects > 0, 0.0, np.nan)
            return DetectionScores(self.names, zero, zero, tuple(objects.tolist()))
        truth = COCO(
            {
                "images": [{"id": number + 1} for number in range(self._pictures)],
                "categories": [{"id": number + 1, "name": name} for number, name in enumerate(self.names)],
                "annotations": self._truth,
            }
        )
        run = COCOeval_faster(truth, truth.loadRes(self._found), "bbox")
        run.params.maxDets = list(LIMITS)
        run.evaluate()
        run.accumulate()
        # Thresholds, recalls, classes, areas (all first), limits; -1 where a class has no objects.
        precision = run.eval["precision"][:, :, :, 0, -1]
        table = np.where((precision < 0).any(axis=1), np.nan, precision.mean(axis=1))
        return DetectionScores(self.names, table.mean(axis=0), table[0], tuple(objects.tolist()))

    def _row(self, box: list[float], label: int) -> dict[str, Any]:
        left, top, right, bottom = box
        width, height = right - left, bottom - top
        bbox, area = [left, top, width, height], width * height
        return {"image_id": self._pictures, "category_id": label + 1, "bbox": bbox, "area": area}

    def _check(self, boxes: Tensor, labels: Tensor, found: Tensor, found_labels: Tensor, scores: Tensor) -> None:
        if len(boxes) != len(labels) or not len(found) == len(found_labels) == len(scores):
            raise InputError(
                f"A picture has {len(boxes)} true boxes with {len(labels)} labels, and {len(found)} found ones with "
                f"{len(found_labels)} labels and {len(scores)} scores. Give one of each for every box."
            )
        for label in {*labels.tolist(), *found_labels.tolist()}:
            if not (0 <= label < len(self.names) or label == IGNORE):
                raise InputError(f"The label {label} is no index of the {len(self.names)} names.")
