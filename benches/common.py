"""What every bench does: warm up, time both sides alternately, print a table, end in one JSON line."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Comparison:
    """One measured thing beside its baseline; seconds of every repeat are kept."""

    name: str
    ours: list[float]
    baseline_name: str
    baseline: list[float]
    target: str

    @property
    def ratio(self) -> float:
        """Median time over the baseline's median time: below 1 is faster."""
        return median(self.ours) / median(self.baseline)


def compare(
    name: str,
    ours: Callable[[], object],
    baseline_name: str,
    baseline: Callable[[], object],
    *,
    target: str,
    repeats: int = 7,
    warm_up: int = 2,
) -> Comparison:
    """Time two callables in turns, so that a busy machine slows both alike."""
    for _ in range(warm_up):
        ours()
        baseline()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for spent, work in zip(times, (ours, baseline), strict=True):
            start = time.perf_counter()
            work()
            spent.append(time.perf_counter() - start)
    return Comparison(name, times[0], baseline_name, times[1], target)


def finish(bench: str, rows: Sequence[Comparison], **extra: Any) -> None:  # noqa: ANN401
    """Print the table, then everything as one JSON line."""
    table = Table(title=bench, title_justify="left", box=None)
    for column in ("what", "ms", "baseline", "ms ", "ratio", "target"):
        table.add_column(column, justify="right" if "ms" in column or column == "ratio" else "left")
    for row in rows:
        ours, base = (f"{1000 * median(times):.2f}" for times in (row.ours, row.baseline))
        table.add_row(row.name, ours, row.baseline_name, base, f"{row.ratio:.3f}", row.target)
    Console(width=150).print(table)
    measured = [{**asdict(row), "ratio": round(row.ratio, 4)} for row in rows]
    print(json.dumps({"bench": bench, "machine": machine(), "rows": measured, **extra}))


def machine() -> Mapping[str, object]:
    """Return what the figures were measured on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported(),
        "amx": torch.cpu._is_amx_tile_supported(),
    }
