"""Average precision of detections by class, and its mean over base and novel classes apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from jaxtyping import Bool, Float, Int
from pycocotools import mask as coco_mask
from torch import Tensor

from closeup._types import IGNORE, Federated
from closeup.errors import InputError

SomeBoxes = Float[Tensor, "_ 4"]
SomeMasks = Bool[Tensor, "_ _ _"]

LIMITS = (1, 10, 100)
"""Detections of a class in a picture that count, best first; figures are those of the last (COCO's rules)."""

LVIS_LIMIT = 300
"""Detections of a picture that count by LVIS's rules, best first, whatever their classes."""

SIZES = ("all", "small", "medium", "large")
"""Objects of every size, and by the area of their boxes: below 32^2 pixels, up to 96^2, and above (COCO's rules)."""

GROUP = 100
"""Classes that are scored at once: memory is taken for each in every picture, and LVIS has many of both."""


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
    """Gathers pictures' true and found boxes; COCO's rules, or LVIS's where pictures say what was looked for.

    A true box labelled ``IGNORE`` takes no part. A class without objects has no figure, and detections of it do not
    count anywhere, as in COCO's own code. By LVIS's rules a picture's detections of a class that is neither there
    nor known to be absent do not count either, and of a class that is marked in part only those that match a box do.
    With ``masks`` it is by the overlap of masks that things are found, and not of boxes.

    Source: pycocotools' ``COCOeval`` and lvis's ``LVISEval``, both in faster-coco-eval's form, which gives the same
    figures.
    """

    def __init__(self, names: Sequence[str], *, masks: bool = False) -> None:
        self.names, self.masks = tuple(names), masks
        self._pictures: list[Federated | None] = []
        self._sizes: list[tuple[int, int]] = []
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
        federated: Federated | None = None,
        masks: SomeMasks | None = None,
        found_masks: SomeMasks | None = None,
    ) -> None:
        """Add a picture: true boxes (xyxy, any unit of length) with labels, and what was found there with scores.

        ``masks`` and ``found_masks`` are those of the boxes, of one size, where masks are scored. A true box that is a
        ``crowd`` may be found any number of times, or not at all. With ``federated`` the picture is scored by LVIS's
        rules; all pictures are, or none.

        Raises:
            InputError: a label is no index of a name, parts of a picture differ in number, masks are lacking, or the
                picture is to be scored by other rules than those before it.
        """
        self._check(boxes, labels, found, found_labels, scores)
        self._check_masks(boxes, found, masks, found_masks)
        self._check_federated(federated)
        self._pictures.append(federated)
        self._sizes.append((0, 0) if masks is None else (masks.shape[1], masks.shape[2]))
        if federated is not None:
            counted = _counted(found_labels, scores, {*labels.tolist(), *federated.absent})
            found, found_labels, scores = found[counted], found_labels[counted], scores[counted]
            found_masks = None if found_masks is None else found_masks[counted]
        crowds = [False] * len(boxes) if crowd is None else list(crowd)
        truth, guesses = self._rows(boxes, labels, masks), self._rows(found, found_labels, found_masks)
        for row, label, many in zip(truth, labels.tolist(), crowds, strict=True):
            if label != IGNORE:
                self._truth.append(row | {"id": len(self._truth) + 1, "iscrowd": int(many)})
        self._found += [row | {"score": score} for row, score in zip(guesses, scores.tolist(), strict=True)]

    def compute(self) -> DetectionScores:
        """Return the scores of all pictures so far.

        Raises:
            InputError: there is no picture.
        """
        if not self._pictures:
            raise InputError("There is no picture to score. Add some first.")
        count = len(self.names)
        single = [row["category_id"] - 1 for row in self._truth if not row["iscrowd"]]
        objects = np.bincount(np.array(single, dtype=int), minlength=count)
        nothing = np.full(count, np.nan)
        if not self._truth:
            return DetectionScores(self.names, nothing, nothing, (0,) * count)
        if not self._found:
            zero = np.where(objects > 0, 0.0, np.nan)
            return DetectionScores(self.names, zero, zero, tuple(objects.tolist()))
        precision = self._precision()
        table = np.where((precision < 0).any(axis=1), np.nan, precision.mean(axis=1))
        return DetectionScores(self.names, table.mean(axis=0), table[0], tuple(objects.tolist()))

    def figures(self) -> dict[str, float]:
        """Return COCO's twelve figures, 0 to 1, as means over classes with objects; NaN where there is no such object.

        ``ap`` over IoU 0.50 to 0.95, ``ap50`` and ``ap75`` at one; ``ap_small``, ``ap_medium``, ``ap_large`` of objects
        by size; ``ar1``, ``ar10``, ``ar100``: the recall of that many detections of a class in a picture, over IoU 0.50
        to 0.95, and ``ar_small`` and so on of objects by size.

        Raises:
            InputError: there is no picture, or pictures are scored by LVIS's rules.

        Source: pycocotools' ``COCOeval.summarize``.
        """
        if not self._pictures:
            raise InputError("There is no picture to score. Add some first.")
        if self._pictures[0] is not None:
            raise InputError("COCO's figures are of pictures scored by its rules, and these are scored by LVIS's.")
        precision, recall = self._evaluated(SIZES)
        figures = {"ap": precision[..., 0, -1], "ap50": precision[0, ..., 0, -1], "ap75": precision[5, ..., 0, -1]}
        figures |= {f"ap_{size}": precision[..., place, -1] for place, size in enumerate(SIZES) if place}
        figures |= {f"ar{limit}": recall[..., 0, place] for place, limit in enumerate(LIMITS)}
        figures |= {f"ar_{size}": recall[..., place, -1] for place, size in enumerate(SIZES) if place}
        return {name: _mean_of_known(values) for name, values in figures.items()}

    def _precision(self) -> Float[np.ndarray, "thresholds recalls classes"]:
        """Return the precision at each recall; -1 where a class has no objects."""
        precision, _ = self._evaluated(SIZES[:1])
        return precision[:, :, :, 0, -1]

    def _evaluated(
        self, sizes: Sequence[str]
    ) -> tuple[
        Float[np.ndarray, "thresholds recalls classes sizes limits"],
        Float[np.ndarray, "thresholds classes sizes limits"],
    ]:
        """Return precision at each recall, and recall; -1 where a class has no objects."""
        numbers = range(1, len(self.names) + 1)
        # The library wants a frequency by LVIS's rules, for means that are not asked of it.
        categories = [{"id": number, "name": self.names[number - 1], "frequency": "f"} for number in numbers]
        document = {"images": self._images(), "categories": categories}
        truth = COCO({**document, "annotations": self._truth})
        # It writes into what it is given, and does not take nothing.
        found = (
            truth.loadRes([dict(row) for row in self._found]) if self._found else COCO({**document, "annotations": []})
        )
        groups = [list(numbers[first : first + GROUP]) for first in range(0, len(numbers), GROUP)]
        parts = [self._evaluated_group(group, truth, found, len(sizes)) for group in groups]
        precisions, recalls = zip(*parts, strict=True)
        return np.concatenate(precisions, axis=2), np.concatenate(recalls, axis=1)

    def _evaluated_group(
        self, categories: list[int], truth: COCO, found: COCO, sizes: int
    ) -> tuple[
        Float[np.ndarray, "thresholds recalls classes sizes limits"],
        Float[np.ndarray, "thresholds classes sizes limits"],
    ]:
        lvis = self._pictures[0] is not None
        run = COCOeval_faster(truth, found, "segm" if self.masks else "bbox", lvis_style=lvis)
        run.params.catIds = categories
        run.params.maxDets = [*LIMITS[:-1], LVIS_LIMIT] if lvis else list(LIMITS)
        run.params.areaRng, run.params.areaRngLbl = run.params.areaRng[:sizes], run.params.areaRngLbl[:sizes]
        run.evaluate()
        run.accumulate()
        return run.eval["precision"], run.eval["recall"]

    def _images(self) -> list[dict[str, Any]]:
        rows = []
        for number, (federated, (height, width)) in enumerate(zip(self._pictures, self._sizes, strict=True), start=1):
            row: dict[str, Any] = {"id": number, "height": height, "width": width}
            if federated is not None:
                row["neg_category_ids"] = [label + 1 for label in federated.absent]
                row["not_exhaustive_category_ids"] = [label + 1 for label in federated.partial]
            rows.append(row)
        return rows

    def _rows(self, boxes: SomeBoxes, labels: Int[Tensor, " _"], masks: SomeMasks | None) -> list[dict[str, Any]]:
        """Return COCO's annotations of a picture; by masks, if they are scored."""
        rows: list[dict[str, Any]] = []
        for place, ((left, top, right, bottom), label) in enumerate(zip(boxes.tolist(), labels.tolist(), strict=True)):
            width, height = right - left, bottom - top
            shape: dict[str, Any] = {"bbox": [left, top, width, height], "area": width * height}
            if self.masks and masks is not None:
                runs = coco_mask.encode(np.asfortranarray(masks[place].numpy(), dtype=np.uint8))
                shape = {"segmentation": runs, "area": float(coco_mask.area(runs))}
            rows.append({"image_id": len(self._pictures), "category_id": label + 1, **shape})
        return rows

    def _check(self, boxes: Tensor, labels: Tensor, found: Tensor, found_labels: Tensor, scores: Tensor) -> None:
        if len(boxes) != len(labels) or not len(found) == len(found_labels) == len(scores):
            raise InputError(
                f"A picture has {len(boxes)} true boxes with {len(labels)} labels, and {len(found)} found ones with "
                f"{len(found_labels)} labels and {len(scores)} scores. Give one of each for every box."
            )
        self._check_labels({*labels.tolist(), *found_labels.tolist()} - {IGNORE})

    def _check_masks(
        self, boxes: Tensor, found: Tensor, masks: SomeMasks | None, found_masks: SomeMasks | None
    ) -> None:
        if not self.masks:
            return
        if masks is None or found_masks is None or len(masks) != len(boxes) or len(found_masks) != len(found):
            numbers = ["none" if each is None else len(each) for each in (masks, found_masks)]
            raise InputError(
                f"Masks are scored, and a picture has {len(boxes)} true boxes and {len(found)} found ones with "
                f"{numbers[0]} and {numbers[1]} masks. Give one for every box."
            )

    def _check_federated(self, federated: Federated | None) -> None:
        if self._pictures and (self._pictures[0] is None) != (federated is None):
            said = "does not say" if federated is None else "says"
            raise InputError(
                f"Picture {len(self._pictures)} {said} which classes were looked for (`federated`), unlike the ones "
                "before it. Score pictures by LVIS's rules and by COCO's apart."
            )
        if federated is not None:
            self._check_labels({*federated.absent, *federated.partial})

    def _check_labels(self, labels: set[int]) -> None:
        for label in labels:
            if not 0 <= label < len(self.names):
                raise InputError(f"The label {label} is no index of the {len(self.names)} names.")


def _mean_of_known(values: np.ndarray) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")


def _counted(labels: Int[Tensor, " _"], scores: Float[Tensor, " _"], known: set[int]) -> Int[Tensor, " _"]:
    """Return which detections count by LVIS's rules: of the best of a picture, those of classes looked for."""
    best = scores.argsort(descending=True, stable=True)[:LVIS_LIMIT]
    return best[torch.isin(labels[best], torch.tensor(sorted(known), dtype=labels.dtype, device=labels.device))]
