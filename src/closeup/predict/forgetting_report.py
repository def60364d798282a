"""Two models' figures side by side: gained on regions, forgotten on whole images, in percentage points."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from closeup.errors import InputError
from closeup.predict.report import Report

REGIONS = "regions"
CLASSIFICATION = "classification"
RETRIEVAL = "retrieval"

FIRST = "R@1"

Row: TypeAlias = dict[str, str | int | float]


@dataclass(frozen=True, slots=True)
class Figure:
    """How well a model did one thing: a share between 0 and 1 of ``count`` regions, images or captions."""

    task: str
    """``regions``, ``classification`` or ``retrieval``; the last two are of whole images."""
    name: str
    count: int
    value: float


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures of one model, and which model it is."""

    model: str
    fingerprint: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class ForgettingReport(Report):
    """What an adapted model gained and forgot against the model that it was adapted from.

    ``taught`` is the region encoder on which gain is counted.

    Raises:
        InputError: the two were not measured on the same things.
    """

    before: Figures
    after: Figures
    taught: str = "dense"

    def __post_init__(self) -> None:
        asked = [[(one.task, one.name, one.count) for one in side.figures] for side in (self.before, self.after)]
        if asked[0] != asked[1]:
            raise InputError("The two models were measured on different things; measure both with the same settings.")

    @property
    def gained(self) -> dict[str, float]:
        """Percentage points of top-1 by which regions are recognised better by what was taught, per kind of region."""
        start = f"{self.taught} "
        return {
            row.name.removeprefix(start): gain
            for row, gain in self._gains()
            if row.task == REGIONS and row.name.startswith(start)
        }

    @property
    def forgotten(self) -> dict[str, float]:
        """Percentage points lost at every whole-image task; negative where the model became better."""
        return {f"{row.task}: {row.name}": -gain + 0.0 for row, gain in self._gains() if row.task != REGIONS}

    def summary(self) -> dict[str, dict[str, float]]:
        """Return ``gained``, and ``forgotten`` as two means: of classification, and of R@1 in both directions."""
        lost: dict[str, list[float]] = {}
        for row, gain in self._gains():
            if row.task == CLASSIFICATION or (row.task == RETRIEVAL and row.name.endswith(FIRST)):
                lost.setdefault(_SHORT[row.task], []).append(-gain + 0.0)
        return {"gained": self.gained, "forgotten": {task: sum(one) / len(one) for task, one in lost.items()}}

    def table(self) -> list[Row]:
        """Return one row per figure: before and after between 0 and 1, and the change in percentage points."""
        return [
            {
                "task": old.task,
                "measure": old.name,
                "count": old.count,
                "before": old.value,
                "after": new.value,
                "points": 100 * (new.value - old.value),
            }
            for old, new in self._pairs()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, fit for JSON."""
        models = {
            role: {"model": side.model, "fingerprint": side.fingerprint}
            for role, side in (("before", self.before), ("after", self.after))
        }
        return {**models, "gained": self.gained, "forgotten": self.forgotten, "rows": self.table()} | {
            "summary": self.summary()
        }

    def _pairs(self) -> Iterator[tuple[Figure, Figure]]:
        return zip(self.before.figures, self.after.figures, strict=True)

    def _gains(self) -> Iterator[tuple[Figure, float]]:
        return ((old, 100 * (new.value - old.value)) for old, new in self._pairs())


def figures_to_dict(figures: Figures) -> dict[str, Any]:
    """Return one model's figures as plain values, fit for JSON."""
    return asdict(figures)


_SHORT = {CLASSIFICATION: "zero-shot classification", RETRIEVAL: "retrieval R@1"}
