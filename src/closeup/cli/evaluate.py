"""The verb ``evaluate``: how well a model recognises regions, or segments, on a data set."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from closeup.cli.choices import Canvas, Encoder
from closeup.cli.evaluate_detection import Detection, run_detection
from closeup.cli.evaluate_finegrained import FineGrained, run_finegrained
from closeup.cli.evaluate_forgetting import Forgetting, run_forgetting
from closeup.cli.evaluate_panoptic import Panoptic, run_panoptic
from closeup.cli.fields import Flag, Maybe
from closeup.cli.files import check_folder, check_report, counted, save_picture
from closeup.cli.method import MethodOptions
from closeup.cli.model import ModelOptions
from closeup.cli.output import show, show_json, table
from closeup.cli.words import read_templates, read_words
from closeup.data.record import Reader
from closeup.data.registry import open_reader
from closeup.data.write_pictures import safe_name
from closeup.errors import InputError
from closeup.evaluate import Absent
from closeup.models import Clip
from closeup.models.windows import Window
from closeup.predict import clusters, evaluate_regions
from closeup.predict.evaluate_regions import CELLS
from closeup.predict.evaluate_segmentation import evaluate_scorer
from closeup.text import Vocabulary


@dataclass(frozen=True)
class DataOptions:
    """Which records, and the words for their classes."""

    data: str
    """The data set: "world", "coco-panoptic:/data/coco", "ade20k:/data/ade", "voc:/data/VOCdevkit", ..."""

    split: Maybe[str] = None
    """The split: train, val or test; val unless the data set's line says otherwise."""

    limit: Maybe[int] = None
    """Only the first so many records."""

    words: Maybe[str] = None
    """One word per class in the data set's order, as names, a file, or a list with synonyms such as "ade20k-847"; the
    data set's own names unless given."""

    def reader(self) -> Reader:
        """Open the data set."""
        if self.limit is not None and self.limit < 1:
            raise InputError(f"--limit {self.limit}: give at least one record.")
        reader = open_reader(self.data, self.split)
        if not reader.names:
            raise InputError(f"--data {self.data}: this data set has no names of classes. Give one with labels.")
        return reader

    def vocabulary(self) -> Vocabulary | None:
        """Return the words for the classes, None for the data set's own names."""
        return None if self.words is None else read_words(self.words)


@dataclass(frozen=True)
class Regions:
    """Measure how often a region's true word scores best (CLIPSelf's Tables 1 and 2).

    Every region competes among all classes; accuracies are means over classes, for boxes and masks, things and stuff.

        closeup evaluate regions --data world --limit 100
        closeup evaluate regions --data coco-panoptic:/data/coco --model EVA02-B-16/merged2b_s8b_b131k --json
        closeup evaluate regions --data world --how dense --pictures kmeans/ --out regions.json
    """

    records: Annotated[DataOptions, arg(name="")]

    how: tuple[Encoder, ...] = ("dense", "crop")
    """The region encoders: pool the dense map, encode each cut-out, masked or not, or give each mask a class token."""

    templates: str = "vild-63"
    """The sentences around a name: a set such as "simple", or a file of sentences."""

    window: Maybe[Window] = None
    """Cells along a side of windows that attention stays inside in the dense map, or "native" for the grid that the
    model was trained on; attention over the whole map unless given."""

    canvas: Canvas = "official"
    """How images are brought to the size: "official" is CLIPSelf's, in a corner of a black square; "fit" has no pad."""

    workers: int = 2
    """Threads that read and prepare records ahead."""

    pictures: Maybe[Path] = None
    """A folder for k-means pictures of the dense maps of the first records."""

    sheets: int = 8
    """How many such pictures."""

    clusters: int = 8
    """Clusters in each of them."""

    out: Maybe[Path] = None
    """A json file for the whole report."""

    json: Flag = False
    """Print the report as one json document instead of a table."""

    clip: Annotated[ModelOptions, arg(name="")] = field(default_factory=ModelOptions)


@dataclass(frozen=True)
class Segmentation:
    """Measure segmentation: mean IoU over classes, pooled over all pixels of a data set; novel classes apart too.

    Labels are compared at the size of the true label map; pixels without a class do not count.

        closeup evaluate segmentation --data world --limit 100
        closeup evaluate segmentation --data camvid:/data/camvid --model ViT-B-16/openai --size 448 --json
        closeup evaluate segmentation --data ade20k:/data/ade --size 672 --window 336 --templates openai-80
        closeup evaluate segmentation --data ade20k-847:/data/ADE20K_2021_17_01 --words ade20k-847 --absent zero
        closeup evaluate segmentation --data world --limit 100 --method ovseg --masks my-masks --model my-mask-clip
        closeup evaluate segmentation --data world --limit 100 --method ovseg --masks truth
        closeup evaluate segmentation --data camvid:/data/camvid --method denseclip --head my-streets
    """

    records: Annotated[DataOptions, arg(name="")]

    templates: Maybe[str] = None
    """The sentences around a name: a set such as "simple", as unless given, or "openai-80", or a file of sentences; a
    denseclip was trained with its own."""

    absent: Absent = "ignore"
    """What a class that is found but nowhere true does to the mean IoU: nothing, or it counts as 0 as in OVSeg."""

    workers: int = 2
    """Threads that read records ahead."""

    out: Maybe[Path] = None
    """A json file for the whole report."""

    json: Flag = False
    """Print the report as one json document instead of a table."""

    how: Annotated[MethodOptions, arg(name="")] = field(default_factory=MethodOptions)

    clip: Annotated[ModelOptions, arg(name="")] = field(default_factory=ModelOptions)


Options = {
    "regions": Regions,
    "segmentation": Segmentation,
    "detection": Detection,
    "panoptic": Panoptic,
    "forgetting": Forgetting,
    "finegrained": FineGrained,
}


def run(options: Regions | Segmentation | Detection | Panoptic | Forgetting | FineGrained) -> int:
    """Evaluate a model and print the report."""
    if isinstance(options, Panoptic):
        return run_panoptic(options)
    if isinstance(options, Forgetting):
        return run_forgetting(options)
    if isinstance(options, FineGrained):
        return run_finegrained(options)
    if isinstance(options, Detection):
        return run_detection(options)
    options.clip.check()
    if options.workers < 0:
        raise InputError(f"--workers {options.workers}: give 0 for none, or more.")
    if options.out is not None:
        check_report(options.out)
    return _regions(options) if isinstance(options, Regions) else _segmentation(options)


def _regions(options: Regions) -> int:
    if min(options.sheets, options.clusters) < 1:
        raise InputError(f"--sheets {options.sheets} --clusters {options.clusters}: give at least one of each.")
    if options.pictures is not None:
        check_folder(options.pictures, "--pictures")
    reader, words = options.records.reader(), options.records.vocabulary()
    templates = read_templates(options.templates)
    clip = options.clip.load()
    with counted("evaluating") as tell:
        report = evaluate_regions(
            clip,
            reader,
            how=options.how,
            words=words,
            templates=templates,
            route=options.clip.route,
            window=options.window,
            size=options.clip.size,
            canvas=options.canvas,
            limit=options.records.limit,
            workers=options.workers,
            on_progress=tell,
        )
    rows = report.table()
    if not rows:
        raise InputError(f"--data {options.records.data}: none of its {report.images} records has a region.")
    written = [] if options.out is None else [report.save(options.out)]
    if options.pictures is not None:
        written += _draw(clip, reader, options, options.pictures)
    if options.json:
        show_json({"data": options.records.data, **report.to_dict(), "written": written})
        return 0
    show(
        table(list(rows[0]), [list(row.values()) for row in rows]),
        f"{report.images} images of {options.records.data}, model {clip.name}; {report.left_out} regions too small or "
        "too large. top1, top5: means over classes.",
        *(f"Written: {path}" for path in written),
    )
    return 0


def _draw(clip: Clip, reader: Reader, options: Regions, folder: Path) -> list[Path]:
    clip_options = options.clip
    count = min(options.sheets, options.records.limit or len(reader), len(reader))
    written = []
    for index in range(count):
        record = reader[index]
        picture = clusters(
            {f"dense map, route {clip_options.route}": clip},
            record.load(),
            options.clusters,
            size=clip_options.size or CELLS * clip.patch,
            route=clip_options.route,
            window=options.window,
        )
        written.append(save_picture(picture, folder / f"{safe_name(record.id)}-kmeans.png"))
    return written


def _segmentation(options: Segmentation) -> int:
    options.how.check(options.clip)
    reader, words = options.records.reader(), options.records.vocabulary()
    templates = None if options.templates is None else read_templates(options.templates)
    scorer = options.how.load(options.clip)
    with counted("evaluating") as tell:
        report = evaluate_scorer(
            scorer,
            reader,
            words=words,
            templates=templates,
            absent=options.absent,
            limit=options.records.limit,
            workers=options.workers,
            on_progress=tell,
        )
    written = [] if options.out is None else [report.save(options.out)]
    if options.json:
        show_json({"data": options.records.data, **report.to_dict(), "written": written})
        return 0
    means: dict[str, Any] = report.summary()
    counted_in = "" if options.absent == "ignore" else " (miou: or are found, with 0)"
    show(
        table(["class", "pixels", "IoU"], [list(row.values()) for row in report.table()]),
        table(list(means), [list(means.values())]),
        f"{report.images} images of {options.records.data}, model {scorer.clip.name}. miou, macc: means over the "
        f"classes that occur{counted_in}; pacc: the share of pixels that are right.",
        *(f"Written: {path}" for path in written),
    )
    return 0
