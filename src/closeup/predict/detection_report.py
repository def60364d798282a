"""What measuring detection found, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from closeup.evaluate import DetectionScores
from closeup.predict.provenance import Provenance
from closeup.predict.report import Report

FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}
"""LVIS's three kinds of classes: its APr, APc and APf."""


@dataclass(frozen=True, slots=True, eq=False)
class DetectionReport(Report):
    """Average precision by class, which classes are novel, and what made it.

    ``frequencies`` are LVIS's "r", "c" and "f" of the classes, empty for other data sets.
    """

    scores: DetectionScores
    novel: tuple[bool, ...]
    images: int
    seconds: float
    """Wall-clock seconds per image, reading included."""
    provenance: Provenance
    frequencies: tuple[str, ...] = ()

    def summary(self) -> dict[str, float]:
        """Return AP50 and AP of novel, base and all classes, 0 to 1; NaN where there is no such class.

        Of LVIS, AP of rare, common and frequent ones too.
        """
        base = [not mark for mark in self.novel]
        groups = {"novel": list(self.novel), "base": base, "all": [True] * len(base)}
        frequent = {
            f"{name} AP": self.scores.mean([each == mark for each in self.frequencies], at50=False)
            for mark, name in FREQUENCIES.items()
            if self.frequencies
        }
        return {
            f"{name} {label}": self.scores.mean(group, at50=at50)
            for at50, label in ((True, "AP50"), (False, "AP"))
            for name, group in groups.items()
        } | frequent

    def table(self) -> list[dict[str, str | float | int]]:
        """Return one row for each class that has objects."""
        rows = zip(self.scores.names, self.novel, self.scores.objects, self.scores.ap50, self.scores.ap, strict=True)
        return [
            {
                "class": name,
                "group": "novel" if new else "base",
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
