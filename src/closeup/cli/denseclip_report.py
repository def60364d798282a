"""How well a dense predictor does once it is trained, on pictures that it did not learn from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from closeup.cli.adapt_denseclip import DenseClipOptions
from closeup.cli.adapt_options import NO_REPORT
from closeup.cli.files import counted
from closeup.cli.output import show, show_json
from closeup.cli.train import trained, written
from closeup.data.readable import open_train
from closeup.data.record import Reader
from closeup.data.registry import open_reader
from closeup.data.spec import DEFAULT_SPLIT, at_split, split_spec
from closeup.errors import DataError, InputError
from closeup.heads.closed_words import places_among
from closeup.heads.dense_predictor import load_dense_predictor
from closeup.predict.dense_predictor import DensePredictorScorer
from closeup.predict.evaluate_segmentation import SegmentationReport, evaluate_scorer
from closeup.recipes.runs import read_card, run_folder, write_card
from closeup.text import Vocabulary

LIMIT = 200
"""Pictures of a report, at most."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Pictures to measure on, what they are called, and how many of them are looked at."""

    data: str
    reader: Reader
    limit: int

    def measure(self, folder: Path, precision: str) -> SegmentationReport:
        """Return the measured head of a folder."""
        scorer = DensePredictorScorer(load_dense_predictor(folder, precision=precision))
        with counted("measuring") as tell:
            return evaluate_scorer(scorer, self.reader, limit=self.limit, on_progress=tell)


def run_denseclip(options: DenseClipOptions) -> int:
    """Train, save, and tell how well it does."""
    held = held_out(options)
    done = trained(options)
    if not done.main:
        return 0
    measured = None
    if held is not None:
        report = held.measure(done.folder, "fp32" if options.precision == "fp32" else "auto")
        report.save(run_folder(done.folder) / "segmentation.json")
        measured = {"data": held.data, "limit": held.limit, "images": report.images, **report.summary()}
        write_card(done.folder, {**read_card(done.folder), "measured": measured})
    if options.json:
        show_json({"head": done.folder, "figures": done.figures, "measured": measured})
        return 0
    show(written(done), _line(measured, options))
    return 0


def held_out(options: DenseClipOptions) -> HeldOut | None:
    """Return the pictures that a head is measured on, None for none; nothing is trained by then.

    Raises:
        InputError: a report on a data set that cannot be opened, has no label maps, or names what is not learned.
    """
    if options.report_limit is not None and options.report_limit < 1:
        raise InputError(f"--report-limit {options.report_limit}: give at least one picture.")
    asked = options.report not in (None, NO_REPORT) or options.report_limit is not None
    if options.task != "segment" and asked:
        raise InputError(f"A report is of pixels; what --task {options.task} makes is for closeup evaluate detection.")
    if options.report == NO_REPORT and options.report_limit is not None:
        raise InputError(f"--report-limit {options.report_limit} is of a report, and --report none has none. Drop it.")
    if options.report == NO_REPORT or options.task != "segment":
        return None
    if options.report is None:
        return _own_split(options)
    reader = open_reader(options.report)
    if not reader.names or not len(reader) or reader[0].label_map is None:
        raise InputError(f"--report {options.report}: it has no label maps to measure on. Give a data set with some.")
    learned = open_train(options.images, options.split).names
    places_among(Vocabulary(reader.names), learned, str(options.out))
    return HeldOut(options.report, reader, options.report_limit or LIMIT)


def _own_split(options: DenseClipOptions) -> HeldOut | None:
    """Return the split val of the training data set, None where there is none, or it is what is learned from."""
    if (options.split or split_spec(options.images)[2].get("split")) == DEFAULT_SPLIT:
        return None
    try:
        reader, learned = open_reader(options.images, DEFAULT_SPLIT), open_train(options.images, options.split)
    except DataError:
        return None
    if not len(reader) or not len(learned) or reader.names != learned.names:
        return None
    first, other = reader[0], learned[0]
    # Without folders for its splits a data set is the same whichever is asked for.
    same = isinstance(first.image, str | Path) and first.image == other.image
    return (
        None
        if same or first.label_map is None
        else HeldOut(at_split(options.images, DEFAULT_SPLIT), reader, options.report_limit or LIMIT)
    )


def _line(measured: dict[str, Any] | None, options: DenseClipOptions) -> str:
    if measured is None:
        how = "segmentation --method denseclip" if options.task == "segment" else "detection --detector"
        return f"Not measured: see closeup evaluate {how}."
    if not measured["pixels"]:
        return f"Not measured: no pixel of {measured['data']} has a word."
    figures = ", ".join(f"{name} {measured[name]:.4f}" for name in ("miou", "macc", "pacc"))
    return f"On {measured['images']} pictures of {measured['data']}: {figures}."
