"""A detector in the part ``finegrained`` of the verb ``evaluate``: does it find what captions describe?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from closeup.cli.files import counted
from closeup.cli.model import ModelOptions
from closeup.cli.output import show, show_json, table
from closeup.data.atomic import write_json
from closeup.data.fgovd import BENCHMARKS
from closeup.data.record import Reader
from closeup.predict.caption_detectors import open_caption_detector
from closeup.predict.described_objects_report import DescribedObjectsReport
from closeup.predict.evaluate_described_objects import evaluate_described_objects

COLUMNS = (
    "found",
    "mean_rank",
    "mean_rank_found",
    "top1_found",
    "chance_rank",
    "ap",
    "ap50",
    "items",
    "left_out",
    "skipped",
)


def run_detector(
    detector: str,
    readers: Mapping[str, Reader],
    negatives: Mapping[str, int],
    options: ModelOptions,
    *,
    limit: int | None,
    workers: int,
    out: Path | None,
    json: bool,
) -> int:
    """Ask a detector for the captions of every benchmark, and print what it finds and how it ranks."""
    clip = None if options.model == ModelOptions().model else options.load()
    asking = open_caption_detector(detector, device=options.device, precision=options.precision, clip=clip)
    reports: dict[str, DescribedObjectsReport] = {}
    for name, reader in readers.items():
        with counted(f"asking for {name}") as tell:
            reports[name] = evaluate_described_objects(
                asking, reader, negatives=negatives[name], limit=limit, workers=workers, on_progress=tell
            )
    about: dict[str, Any] = {"detector": detector}
    if out is not None:
        write_json(out, {**about, "benchmarks": {name: each.to_dict() for name, each in reports.items()}})
    figures = {name: {"N": each.negatives, **each.summary()} for name, each in reports.items()}
    written = [] if out is None else [out]
    if json:
        show_json({**about, "benchmarks": figures, "written": written})
        return 0
    lines = [
        [BENCHMARKS[name].title if name in BENCHMARKS else name, row["N"], *(row[column] for column in COLUMNS)]
        for name, row in figures.items()
    ]
    show(
        table(["benchmark", "N", *(column.replace("_", " ") for column in COLUMNS)], lines),
        "An object without a box at an IoU of 0.5 has the last rank; the ranks of found ones alone stand beside. Ties "
        "count against the right caption. Average precision is COCO's, right captions as classes.",
        *(f"Written: {path}" for path in written),
    )
    return 0
