"""What one matcher achieves on several benchmarks of fine-grained matching, and their mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from closeup.data.fgovd import BENCHMARKS
from closeup.predict.fine_grained_report import FineGrainedReport
from closeup.predict.report import Report


@dataclass(frozen=True, slots=True, eq=False)
class BenchmarksReport(Report):
    """The report of each benchmark, by its name."""

    reports: Mapping[str, FineGrainedReport]

    @property
    def ranked(self) -> tuple[str, ...]:
        """The benchmarks of which some region has a rank."""
        return tuple(name for name, report in self.reports.items() if len(report.ranks().ranks))

    @property
    def mean_rank(self) -> float:
        """The mean of the benchmarks' mean ranks, each counted alike: over all eight it is FG-CLIP's "FG mean rank".

        NaN where no benchmark has one.
        """
        means = [self.reports[name].ranks().mean for name in self.ranked]
        return sum(means) / len(means) if means else float("nan")

    def table(self) -> list[dict[str, Any]]:
        """Return a row of figures per benchmark; NaN for a mean over nothing."""
        rows: list[dict[str, str | int | float]] = []
        for name, report in self.reports.items():
            found = report.ranks()
            title = BENCHMARKS[name].title if name in BENCHMARKS else name
            figures = {"mean_rank": found.mean, "median": found.median(), "top1": found.top1, "chance": found.chance}
            items = {"items": len(found.ranks), "left_out": found.left_out}
            rows.append({"benchmark": title, "N": report.negatives, **figures, **items})
        return rows

    def summary(self) -> dict[str, Any]:
        """Return the figures of every benchmark and their mean, fit for JSON; a mean over nothing is None."""
        some = bool(self.ranked)
        return {
            "mean_rank": self.mean_rank if some else None,
            "ranked": len(self.ranked),
            "benchmarks": {name: report.summary() for name, report in self.reports.items()},
        }

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, fit for JSON."""
        return {**self.summary(), "benchmarks": {name: each.to_dict() for name, each in self.reports.items()}}
