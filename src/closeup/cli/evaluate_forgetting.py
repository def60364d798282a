"""The part ``forgetting`` of the verb ``evaluate``: what an adapted model gained and what it forgot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from rich.console import RenderableType
from tyro.conf import arg

from closeup.cli.choices import Encoder, Precision
from closeup.cli.fields import Flag, Maybe
from closeup.cli.files import check_report, counted
from closeup.cli.output import show, show_json, table
from closeup.data.record import Reader
from closeup.data.registry import open_reader
from closeup.errors import InputError
from closeup.models import Clip, get_route, load
from closeup.models.windows import Window
from closeup.predict.forgetting import CLOSE_UPS, measure, tasks_of
from closeup.predict.forgetting_report import Figures, ForgettingReport


@dataclass(frozen=True)
class MeasureOptions:
    """On what gain and forgetting are measured, and how."""

    data: str = "world"
    """The records: with labelled regions, with one label an image, with captions, or with several of these."""

    split: Maybe[str] = None
    """The split: train, val or test; val unless the data set's line says otherwise."""

    limit: Maybe[int] = None
    """Only the first so many records."""

    close_ups: int = CLOSE_UPS
    """Close-ups of the world that whole-image tasks ask about, where the data is the world."""

    how: tuple[Encoder, ...] = ("dense", "crop")
    """The region encoders: what is gained is counted on the first, the others are what it may come up to. Masked crops
    are seen with the model's mask prompts where it has some."""

    templates: str = "vild-63"
    """The sentences around class names: a set such as "simple"."""

    route: str = "value"
    """How the last block is replaced in the dense map."""

    window: Maybe[Window] = None
    """Cells along a side of windows that attention stays inside in the dense map, or "native" for the grid that the
    model was trained on; attention over the whole map unless given."""

    size: Maybe[int] = None
    """Longest side in pixels for the dense map; 64 cells unless given."""

    workers: int = 2
    """Threads that read records ahead."""

    precision: Precision = "auto"
    """Arithmetic: "auto" is bf16 where the machine is faster at it and the model bears it."""

    device: str = "auto"
    """Where to compute: "auto", "cpu", "cuda", "cuda:1"."""

    def reader(self) -> Reader:
        """Open the records, once everything that can be seen to be wrong without them was looked at."""
        if min(self.close_ups, 1 if self.limit is None else self.limit) < 1:
            raise InputError(f"--limit {self.limit} --close-ups {self.close_ups}: give at least one.")
        if self.workers < 0 or (self.size is not None and self.size < 1):
            raise InputError(
                f"--workers {self.workers} --size {self.size}: give 0 workers or more, and a size above 0."
            )
        get_route(self.route)
        reader = open_reader(self.data, self.split)
        tasks_of(reader)
        return reader

    def load(self, model: str) -> Clip:
        """Load a model to measure."""
        return load(model, device=self.device, precision=self.precision)

    def measure(self, clip: Clip, reader: Reader, what: str) -> Figures:
        """Return a model's figures, with a progress bar on a terminal."""
        with counted(what) as tell:
            return measure(
                clip,
                reader,
                how=self.how,
                templates=self.templates,
                route=self.route,
                window=self.window,
                size=self.size,
                limit=self.limit,
                close_ups=self.close_ups,
                workers=self.workers,
                on_progress=tell,
            )

    def compare(self, before: Clip, after: Clip, reader: Reader) -> ForgettingReport:
        """Measure two models."""
        return ForgettingReport(
            self.measure(before, reader, "measuring before"),
            self.measure(after, reader, "measuring after"),
            taught=self.how[0],
        )


def report_lines(report: ForgettingReport, data: str) -> Sequence[RenderableType]:
    """Return what is printed of a report: every figure, and the gains and losses in a line each."""
    columns = ["task", "measure", "count", "before", "after", "points"]
    rows = [[*(row | {"points": f"{row['points']:+.1f}"}).values()] for row in report.table()]
    summary = report.summary()
    return [
        table(columns, rows),
        f"On {data}: {report.before.model} before, {report.after.model} after; points are percentage points.",
        *(
            f"{word.capitalize()}: " + "; ".join(f"{name} {points:+.1f}" for name, points in found.items()) + "."
            for word, found in summary.items()
            if found
        ),
    ]


@dataclass(frozen=True)
class Forgetting:
    """Measure what an adapted model gained on regions, and what it forgot about whole images.

    Gained is top-1 of region recognition, from the dense map unless --how begins otherwise. Forgotten is zero-shot
    classification and image-text retrieval, on close-ups of the world, or wherever records have a label for the whole
    image or captions.

        closeup evaluate forgetting --before tiny --after my-clip
        closeup evaluate forgetting --before ViT-B-16/openai --after my-clip --data coco-captions:/data/coco --json
        closeup evaluate forgetting --before tiny --after my-clip --limit 100 --how dense --out report.json
        closeup evaluate forgetting --before tiny --after my-mask-clip --how masked-crop crop
    """

    before: str
    """The model that was adapted: a name, or a folder of a model."""

    after: str
    """The adapted model."""

    measuring: Annotated[MeasureOptions, arg(name="")] = field(default_factory=MeasureOptions)

    out: Maybe[Path] = None
    """A json file for the whole report."""

    json: Flag = False
    """Print the report as one json document instead of a table."""


def run_forgetting(options: Forgetting) -> int:
    """Measure both models and print the report."""
    if options.out is not None:
        check_report(options.out)
    reader = options.measuring.reader()
    before, after = options.measuring.load(options.before), options.measuring.load(options.after)
    report = options.measuring.compare(before, after, reader)
    written = [] if options.out is None else [report.save(options.out)]
    if options.json:
        show_json({"data": options.measuring.data, **report.to_dict(), "written": written})
        return 0
    show(*report_lines(report, options.measuring.data), *(f"Written: {path}" for path in written))
    return 0
