"""A detector measured: average precision over a reader's boxes, base and novel words apart."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from closeup._types import IGNORE
from closeup.data.record import Reader
from closeup.errors import DataError, InputError
from closeup.evaluate import AveragePrecision, DetectionScores
from closeup.heads.saved import Detector
from closeup.match.detections import Suppression
from closeup.predict.detect import LIMIT, detect
from closeup.predict.evaluate_regions import Progress
from closeup.predict.prefetch import prefetched
from closeup.predict.provenance import Provenance
from closeup.predict.report import Report
from closeup.predict.words import Words, as_bank
from closeup.text import Templates

THRESHOLD = 0.01
"""Scores that count, as in F-ViT's protocol: average precision wants the doubtful ones too."""


@dataclass(frozen=True, slots=True, eq=False)
class DetectionReport(Report):
    """Average precision by class, which classes the detector did not learn, and what made it."""

    scores: DetectionScores
    novel: tuple[bool, ...]
    images: int
    seconds: float
    """Wall-clock seconds per image, reading included."""
    provenance: Provenance

    def summary(self) -> dict[str, float]:
        """Return AP50 and AP of novel, base and all classes, 0 to 1; NaN where there is no such class."""
        base = [not mark for mark in self.novel]
        groups = {"novel": list(self.novel), "base": base, "all": [True] * len(base)}
        return {
            f"{name} {label}": self.scores.mean(group, at50=at50)
            for at50, label in ((True, "AP50"), (False, "AP"))
            for name, group in groups.items()
        }

    def table(self) -> list[dict[str, str | float | int]]:
        """Return one row for each class that has objects."""
        rows = zip(self.scores.names, self.novel, self.scores.objects, self.scores.ap50, self.scores.ap, strict=True)
        return [
            {
                "class": name,
                "learned": "no" if new else "yes",
                "objects": count,
                "AP50": float(ap50),
                "AP": float(ap),
            }
            for name, new, count, ap50, ap in rows
            if count
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON; a figure that does not exist is None."""
        return {
            "summary": {name: None if value != value else value for name, value in self.summary().items()},
            "per_class": self.table(),
            "images": self.images,
            "seconds_per_image": self.seconds,
            "provenance": self.provenance.to_dict(),
        }


def evaluate_detection(
    detector: Detector,
    reader: Reader,
    *,
    words: Words | None = None,
    templates: str | Templates | None = None,
    threshold: float = THRESHOLD,
    limit_found: int = LIMIT,
    suppression: Suppression | None = None,
    limit: int | None = None,
    workers: int = 2,
    on_progress: Progress | None = None,
) -> DetectionReport:
    """Detect in every record of a reader among the names of its things, and compare with its boxes by COCO's rules.

    All words compete at once, learned and novel (the generalised protocol). ``words`` has one word per thing, in the
    reader's order (None: its names). ``limit_found`` are the objects of a picture that count at most; ``limit``,
    ``workers`` and ``on_progress`` are as in ``evaluate_regions``, all other arguments as in ``detect``.

    Raises:
        InputError: there are no things, or words do not fit them; and as ``detect`` does.
        DataError: a record has no labelled boxes.
    """
    things = reader.things or (True,) * len(reader.names)
    places = {label: place for place, label in enumerate(label for label, thing in enumerate(things) if thing)}
    names = [reader.names[label] for label in places]
    if not names:
        raise InputError("The reader has no names of things, so there is nothing to detect. Give one with labels.")
    bank = as_bank(detector.clip, names if words is None else words, templates or detector.templates)
    if len(bank) != len(names):
        raise InputError(f"{len(bank)} words for {len(names)} things of the reader: give one word per thing.")
    metric = AveragePrecision(names)
    count = len(reader) if limit is None else min(limit, len(reader))
    start, made = time.perf_counter(), None
    for done, record in enumerate(prefetched(reader.__getitem__, count, workers), start=1):
        if record.boxes is None or record.labels is None:
            raise DataError(f"Record {record.id!r} has no labelled boxes: there is nothing to compare with.")
        found = detect(detector, record.load(), bank, threshold=threshold, limit=limit_found, suppression=suppression)
        labels = torch.tensor([places.get(label, IGNORE) for label in record.labels.tolist()], dtype=torch.long)
        metric.add(record.boxes.float(), labels, found.boxes, found.labels, found.scores)
        made = found.provenance
        if on_progress is not None:
            on_progress(done, count)
    if made is None:
        raise InputError("The reader has no records. Give some.")
    return DetectionReport(
        scores=metric.compute(),
        novel=tuple(detector.marks(bank.names)),
        images=count,
        seconds=(time.perf_counter() - start) / count,
        provenance=made,
    )
