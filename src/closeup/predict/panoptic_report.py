"""What measuring panoptic segmentation found, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from closeup.evaluate.panoptic import PanopticScores
from closeup.predict.provenance import Provenance
from closeup.predict.report import Report


@dataclass(frozen=True, slots=True, eq=False)
class PanopticReport(Report):
    """Panoptic quality by class, which classes are novel, and what made it."""

    scores: PanopticScores
    novel: tuple[bool, ...]
    images: int
    seconds: float
    """Wall-clock seconds per image, reading included."""
    provenance: Provenance

    def summary(self) -> dict[str, dict[str, float | None]]:
        """Return ``PanopticScores.summary`` of all, base and novel classes; None where there is no such class."""
        base = [not mark for mark in self.novel]
        return {
            name: self.scores.summary(marks) for name, marks in (("all", None), ("base", base), ("novel", self.novel))
        }

    def table(self) -> list[dict[str, str | float | int]]:
        """Return one row for each class that is true or predicted somewhere."""
        found, scores = self.scores.per_class(), self.scores
        return [
            {
                "class": name,
                "kind": "thing" if scores.things[row] else "stuff",
                "group": "novel" if self.novel[row] else "base",
                "segments": int(scores.matched[row] + scores.missed[row]),
                **{figure.upper(): float(values[row]) for figure, values in found.items()},
            }
            for row, name in enumerate(scores.names)
            if not bool(found["pq"][row].isnan())
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON; a figure that does not exist is None."""
        return {
            "summary": self.summary(),
            "per_class": self.table(),
            "images": self.images,
            "seconds_per_image": self.seconds,
            "provenance": self.provenance.to_dict(),
        }
