"""The part ``detection`` of the verb ``evaluate``: average precision of a detector, base and novel words apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from closeup.cli.choices import Precision
from closeup.cli.fields import Flag, Maybe
from closeup.cli.files import check_report, counted
from closeup.cli.output import show, show_json, table
from closeup.data.registry import open_reader
from closeup.errors import InputError
from closeup.heads.saved import load_detector
from closeup.predict.evaluate_detection import evaluate_detection


@dataclass(frozen=True)
class Detection:
    """Measure a detector: average precision of every class, by COCO's rules.

    Words that the detector learned and words that it did not compete at once, and are told apart in the figures.

        closeup evaluate detection --detector my-detector --data world --limit 200
        closeup evaluate detection --detector my-detector --data coco:/data/coco --json
    """

    detector: Path
    """The folder of a trained detector, as closeup train makes one."""

    data: str = "world"
    """A data set with labelled boxes: "world", "coco:/data/coco", "lvis:/data/lvis", ..."""

    split: Maybe[str] = None
    """The split: train, val or test; val unless the data set's line says otherwise."""

    limit: Maybe[int] = None
    """Only the first so many records."""

    templates: Maybe[str] = None
    """The sentences around a word; those that the detector learned with unless given."""

    workers: int = 2
    """Threads that read records ahead."""

    precision: Precision = "auto"
    """Arithmetic: "auto" is bf16 where the machine is faster at it and the model bears it."""

    device: str = "auto"
    """Where to compute: "auto", "cpu", "cuda", "cuda:1"."""

    out: Maybe[Path] = None
    """A json file for the whole report."""

    json: Flag = False
    """Print the report as one json document instead of a table."""


def run_detection(options: Detection) -> int:
    """Measure and print the report."""
    if options.workers < 0 or (options.limit is not None and options.limit < 1):
        raise InputError(f"--workers {options.workers} --limit {options.limit}: give 0 workers or more, and a record.")
    if options.out is not None:
        check_report(options.out)
    reader = open_reader(options.data, options.split)
    detector = load_detector(options.detector, device=options.device, precision=options.precision)
    with counted("evaluating") as tell:
        report = evaluate_detection(
            detector,
            reader,
            templates=options.templates,
            limit=options.limit,
            workers=options.workers,
            on_progress=tell,
        )
    written = [] if options.out is None else [report.save(options.out)]
    if options.json:
        show_json({"data": options.data, **report.to_dict(), "written": written})
        return 0
    rows, means = report.table(), report.summary()
    show(
        table(list(rows[0]), [list(row.values()) for row in rows]) if rows else "No record has an object.",
        table(list(means), [list(means.values())]),
        f"{report.images} images of {options.data}, detector {options.detector}. AP50: average precision at an IoU of "
        "0.5; AP: the mean over 0.5 to 0.95; both 0 to 1.",
        *(f"Written: {path}" for path in written),
    )
    return 0
