"""The part ``panoptic`` of the verb ``evaluate``: panoptic quality, base and novel words apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from closeup.cli.fields import Flag, Maybe
from closeup.cli.files import check_report, counted
from closeup.cli.heads import OWN, looking_clip, open_mask_proposer
from closeup.cli.model import ModelOptions
from closeup.cli.output import show, show_json, table
from closeup.cli.panoptic import PanopticOptions
from closeup.cli.words import read_templates, read_words
from closeup.data.registry import open_reader
from closeup.errors import InputError
from closeup.predict.evaluate_panoptic import evaluate_panoptic
from closeup.predict.panoptic_report import PanopticReport

FIGURES = ("pq", "sq", "rq", "things pq", "things sq", "things rq", "stuff pq", "stuff sq", "stuff rq")


@dataclass(frozen=True)
class Panoptic:
    """Measure panoptic segmentation: panoptic quality of every class, by COCO's rules.

    Every pixel belongs to one segment at most, a thing by itself or a ground; words that the proposer learned and
    words that it did not compete at once, and are told apart in the figures.

        closeup evaluate panoptic --head my-masks --data world --limit 200
        closeup evaluate panoptic --head my-masks --data coco-panoptic:/data/coco --how mask-token --json
    """

    outlines: Annotated[PanopticOptions, arg(name="")]

    data: str = "world"
    """A data set with panoptic segments: "world", "coco-panoptic:/data/coco", ..."""

    split: Maybe[str] = None
    """The split: train, val or test; val unless the data set's line says otherwise."""

    limit: Maybe[int] = None
    """Only the first so many records."""

    words: Maybe[str] = None
    """One word per class in the data set's order, as names or a file; the data set's own names unless given."""

    templates: Maybe[str] = None
    """The sentences around a word; those that the proposer learned with unless given."""

    workers: int = 2
    """Threads that read records ahead."""

    out: Maybe[Path] = None
    """A json file for the whole report."""

    json: Flag = False
    """Print the report as one json document instead of a table."""

    clip: Annotated[ModelOptions, arg(name="")] = field(default_factory=lambda: ModelOptions(model=OWN))


def run_panoptic(options: Panoptic) -> int:
    """Measure and print the report."""
    options.clip.check()
    if options.workers < 0 or (options.limit is not None and options.limit < 1):
        raise InputError(f"--workers {options.workers} --limit {options.limit}: give 0 workers or more, and a record.")
    if options.out is not None:
        check_report(options.out)
    reader = open_reader(options.data, options.split)
    words = None if options.words is None else read_words(options.words)
    proposer = open_mask_proposer(options.outlines.head, options.clip)
    clip = looking_clip(proposer, options.clip)
    with counted("evaluating") as tell:
        found = evaluate_panoptic(
            clip,
            proposer,
            reader,
            words=words,
            templates=read_templates(options.templates or proposer.templates),
            limit=options.limit,
            workers=options.workers,
            on_progress=tell,
            **options.outlines.settings(options.clip),
        )
    written = [] if options.out is None else [found.save(options.out)]
    if options.json:
        show_json({"data": options.data, **found.to_dict(), "written": written})
        return 0
    rows = found.table()
    show(
        table(list(rows[0]), [list(row.values()) for row in rows]) if rows else "No record has a segment.",
        table(["classes", *(name.upper() if " " not in name else name for name in FIGURES)], _means(found)),
        f"{found.images} images of {options.data}, outlines of {options.outlines.head}, seen by {clip.name}. PQ: "
        "panoptic quality, the product of SQ, how well segments fit that are found, and RQ, how many are; all 0 to 1.",
        *(f"Written: {path}" for path in written),
    )
    return 0


def _means(found: PanopticReport) -> list[list[object]]:
    return [[group, *(figures[name] for name in FIGURES)] for group, figures in found.summary().items()]
