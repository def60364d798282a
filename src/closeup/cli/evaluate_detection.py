"""The part ``detection`` of the verb ``evaluate``: average precision, base and novel words apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from closeup.cli.fields import Flag, Maybe
from closeup.cli.files import check_report, counted
from closeup.cli.heads import open_detector, open_proposer
from closeup.cli.model import ModelOptions
from closeup.cli.output import show, show_json, table
from closeup.data.record import Reader
from closeup.data.registry import open_reader
from closeup.errors import InputError
from closeup.match.detections import Objectness
from closeup.predict import DetectionReport, evaluate_detection, evaluate_zero_shot_detection
from closeup.predict.evaluate_regions import Progress
from closeup.text import Vocabulary


@dataclass(frozen=True)
class Detection:
    """Measure detection: average precision of every class, by COCO's rules.

    A trained detector finds boxes and names them; words that it learned and words that it did not compete at once, and
    are told apart in the figures. Without one a CLIP alone names boxes (RegionCLIP's Table 4): the true ones, a
    proposer's, or those that are found without labels.

        closeup evaluate detection --detector my-detector --data world --limit 200
        closeup evaluate detection --detector my-detector --data coco:/data/coco --json
        closeup evaluate detection --model tiny-clipself --boxes truth --data world
        closeup evaluate detection --model my-clip --proposer my-rpn --data coco:/data/coco --novel novel-17.txt
    """

    detector: Maybe[Path] = None
    """The folder of a trained detector, as closeup train and closeup adapt denseclip make one. Give --model only if a
    CLIP that it names lies elsewhere now."""

    proposer: Maybe[Path] = None
    """The folder of a trained proposer, as closeup train rpn makes one: boxes for a CLIP alone."""

    boxes: Literal["truth", "found"] = "truth"
    """Boxes for a CLIP alone, where no proposer is given: the true ones, or those found without labels."""

    objectness: Objectness = "sigmoid"
    """How a proposer's logit takes part in a score: as a probability, or raw, as RegionCLIP's code has it."""

    how: Literal["dense", "crop"] = "dense"
    """How a CLIP alone reads a box: off the dense map, or cut out."""

    masks: Flag = False
    """Compare masks and not boxes; the detector must have learned them."""

    data: str = "world"
    """A data set with labelled boxes: "world", "coco:/data/coco", "lvis:/data/lvis", ..."""

    split: Maybe[str] = None
    """The split: train, val or test; val unless the data set's line says otherwise."""

    limit: Maybe[int] = None
    """Only the first so many records."""

    novel: Maybe[Path] = None
    """For a CLIP alone: a file of the words to tell apart as novel, one a line; the data set's own unless given."""

    templates: Maybe[str] = None
    """The sentences around a word; those that the detector learned with, or "simple", unless given."""

    workers: int = 2
    """Threads that read records ahead."""

    out: Maybe[Path] = None
    """A json file for the whole report."""

    json: Flag = False
    """Print the report as one json document instead of a table."""

    clip: Annotated[ModelOptions, arg(name="")] = field(default_factory=ModelOptions)

    def alone(self) -> list[str]:
        """Return the options given that speak of a CLIP alone."""
        usual, mine = Detection(), ("proposer", "boxes", "objectness", "how", "novel")
        given = [name for name in mine if getattr(self, name) != getattr(usual, name)]
        given += [name for name in ("route", "size") if getattr(self.clip, name) != getattr(usual.clip, name)]
        return [f"--{name}" for name in given]


def run_detection(options: Detection) -> int:
    """Measure and print the report."""
    options.clip.check()
    if options.workers < 0 or (options.limit is not None and options.limit < 1):
        raise InputError(f"--workers {options.workers} --limit {options.limit}: give 0 workers or more, and a record.")
    if options.detector is not None and options.alone():
        raise InputError(
            "--detector brings its own boxes, knows its novel words, and how it looks at pictures. "
            f"Drop {', '.join(options.alone())}."
        )
    if options.proposer is not None and options.boxes == "found":
        raise InputError("--proposer brings its own boxes. Drop it, or --boxes.")
    if options.masks and options.detector is None:
        raise InputError("--masks are those of a trained detector. Give --detector, or drop --masks.")
    if options.out is not None:
        check_report(options.out)
    reader = open_reader(options.data, options.split)
    with counted("evaluating") as tell:
        report = (
            _trained(options, options.detector, reader, tell) if options.detector else _alone(options, reader, tell)
        )
    written = [] if options.out is None else [report.save(options.out)]
    if options.json:
        show_json({"data": options.data, **report.to_dict(), "written": written})
        return 0
    rows, means, what = report.table(), report.summary(), "masks" if options.masks else "boxes"
    show(
        table(list(rows[0]), [list(row.values()) for row in rows]) if rows else "No record has an object.",
        table(list(means), [list(means.values())]),
        f"{report.images} images of {options.data}, {options.detector or report.provenance.model}. AP50: average "
        f"precision at an IoU of 0.5 of {what}; AP: the mean over 0.5 to 0.95; both 0 to 1.",
        *(f"Written: {path}" for path in written),
    )
    return 0


def _trained(options: Detection, folder: Path, reader: Reader, tell: Progress) -> DetectionReport:
    detector = open_detector(folder, options.clip)
    return evaluate_detection(
        detector,
        reader,
        templates=options.templates,
        masks=options.masks,
        limit=options.limit,
        workers=options.workers,
        on_progress=tell,
    )


def _alone(options: Detection, reader: Reader, tell: Progress) -> DetectionReport:
    novel = None if options.novel is None else Vocabulary.from_file(options.novel).names
    proposer = open_proposer(options.proposer, options.clip)
    return evaluate_zero_shot_detection(
        options.clip.load(),
        reader,
        boxes=options.boxes if proposer is None else proposer,
        objectness=options.objectness,
        how=options.how,
        novel=novel,
        templates=options.templates,
        route=options.clip.route,
        size=options.clip.size,
        limit=options.limit,
        workers=options.workers,
        on_progress=tell,
    )
