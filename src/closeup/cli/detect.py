"""The verb ``detect``: boxes and words for the objects of photos."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg

from closeup._types import Boxes
from closeup.cli.fields import Flag, Maybe, Photos
from closeup.cli.files import each, find_photos, report
from closeup.cli.heads import open_detector, open_proposer
from closeup.cli.matcher import MatcherOptions
from closeup.cli.model import ModelOptions
from closeup.cli.output import show, show_json, table
from closeup.cli.save import Format, Saver
from closeup.cli.words import MaybeWordOptions
from closeup.errors import InputError
from closeup.geometry import masks_to_boxes
from closeup.match.detections import Objectness, Suppression
from closeup.predict import DetectionResult, detect, detect_zero_shot, propose_boxes
from closeup.predict.detect import LIMIT, THRESHOLD
from closeup.predict.region_file import PhotoRegions, RegionFile
from closeup.predict.words import as_bank, detector_bank


@dataclass(frozen=True)
class Options:
    """Find and name the objects of photos.

    With a trained detector it finds boxes by itself. Without one a CLIP names boxes: those that a trained proposer
    holds for objects, those that are given, or parts that are found in the photo without any training.

        closeup detect photos/ --detector my-detector --words "cat, dog, traffic light" --out found/
        closeup detect photos/ --detector my-denseclip --out found/
        closeup detect photos/ --proposer my-rpn --model tiny-clipself --words words.txt --out found/
        closeup detect photo.jpg --words words.txt --model tiny-clipself --json
        closeup detect photos/ --words words.txt --regions instances.json --format coco --out found/
    """

    photos: Photos
    """Photos: files, folders, globs."""

    text: Annotated[MaybeWordOptions, arg(name="")] = field(default_factory=MaybeWordOptions)

    detector: Maybe[Path] = None
    """The folder of a trained detector, as closeup train and closeup adapt denseclip make one. It knows its CLIP,
    route and size; give --model only if a CLIP that it names lies elsewhere now."""

    proposer: Maybe[Path] = None
    """The folder of a trained proposer, as closeup train rpn makes one: boxes for a CLIP alone, and how sure it is of
    them."""

    objectness: Objectness = "sigmoid"
    """How a proposer's logit takes part in a score: as a probability, or raw, as RegionCLIP's code has it."""

    regions: Maybe[Path] = None
    """Boxes for a CLIP alone: a json file as for closeup classify; found in the photo unless given."""

    how: Literal["dense", "crop"] = "dense"
    """The region encoder of a CLIP alone: pool the dense map (one pass for all boxes), or encode each cut-out."""

    threshold: float = THRESHOLD
    """The score that an object must exceed, 0 to 1."""

    limit: int = LIMIT
    """The most objects of a photo, best first."""

    overlap: Maybe[float] = None
    """The overlap (IoU) above which the worse of two boxes of one word goes: 0.4 with an F-ViT, else 0.5."""

    soft: Flag = False
    """Lower the scores of boxes that overlap better ones instead of dropping them (soft-NMS)."""

    out: Maybe[Path] = None
    """A folder to write into, or the picture of a single photo; nothing is written unless given."""

    format: tuple[Format, ...] = ("png",)
    """What to write: pictures, arrays, one COCO file of all photos."""

    json: Flag = False
    """Print one json document instead of tables."""

    by: Annotated[MatcherOptions, arg(name="")] = field(default_factory=MatcherOptions)

    clip: Annotated[ModelOptions, arg(name="")] = field(default_factory=ModelOptions)

    def suppression(self) -> Suppression | None:
        """Return how overlapping boxes are thinned out, None where it is not said."""
        if self.overlap is None and not self.soft:
            return None
        return Suppression(soft=self.soft) if self.overlap is None else Suppression(self.overlap, self.soft)


@dataclass(frozen=True)
class Finder:
    """What finds objects: its name, its words, and how it looks at a photo."""

    name: str
    words: tuple[str, ...]
    find: Callable[[Path], DetectionResult]


def run(options: Options) -> int:
    """Detect in every photo."""
    options.clip.check()
    options.suppression()
    if not 0 <= options.threshold <= 1 or options.limit < 1:
        raise InputError(f"--threshold {options.threshold} --limit {options.limit}: give 0 to 1, and 1 or more.")
    if sum(source is not None for source in (options.detector, options.proposer, options.regions)) > 1:
        raise InputError("--detector, --proposer and --regions each bring their own boxes. Give one of them.")
    photos, failures = find_photos(options.photos)
    saver = None if options.out is None else Saver(options.out, options.format, photos)
    finder = _zero_shot(options, photos) if options.detector is None else _trained(options, options.detector)

    def work(photo: Path) -> dict[str, Any]:
        result = finder.find(photo)
        if saver is not None:
            saver.save(photo, result)
        return _describe(photo, result)

    done, bad = each(photos, work, "detecting")
    failures += bad
    if saver is not None:
        saver.finish()
    written = [] if saver is None else saver.written
    told = [told for _, told in done]
    if options.json:
        failed = [{"photo": failure.name, "reason": failure.reason} for failure in failures]
        show_json({"model": finder.name, "words": finder.words, "photos": told, "failed": failed, "written": written})
    else:
        rows = [(photo["photo"], *_row(each)) for photo in told for each in photo["objects"]]
        show(table(["photo", "word", "score", "x0 y0 x1 y1"], rows), *(f"Written: {path}" for path in written))
    return report(failures, len(done))


def _trained(options: Options, folder: Path) -> Finder:
    usual = ModelOptions()
    given = [name for name in ("route", "size") if getattr(options.clip, name) != getattr(usual, name)]
    given += [] if options.objectness == Options.objectness else ["objectness"]
    given += [] if options.how == Options.how else ["how"]
    given += [] if options.by.matcher is None else ["matcher"]
    if given:
        raise InputError(f"--{given[0]} is about a CLIP alone; --detector knows how it looks at photos. Drop it.")
    vocabulary, templates = options.text.vocabulary(), options.text.template_set()
    detector = open_detector(folder, options.clip)
    bank = detector_bank(detector, vocabulary, templates)

    def find(photo: Path) -> DetectionResult:
        return detect(
            detector,
            photo,
            bank,
            threshold=options.threshold,
            limit=options.limit,
            suppression=options.suppression(),
        )

    return Finder(str(folder), bank.names, find)


def _zero_shot(options: Options, photos: Sequence[Path]) -> Finder:
    source = None if options.regions is None else RegionFile(options.regions)
    if source is not None:
        source.check(photos)
    vocabulary, templates = options.text.vocabulary(), options.text.template_set()
    if vocabulary is None:
        raise InputError("A CLIP alone knows no words of its own. Give --words, or a --detector.")
    proposer = open_proposer(options.proposer, options.clip)
    clip = options.clip.load()
    matcher = options.by.load(clip, options.how)
    bank = as_bank(clip, vocabulary, templates, matcher)

    def find(photo: Path) -> DetectionResult:
        proposed = None if proposer is None else propose_boxes(proposer, photo)
        boxes = None if source is None else _boxes(source.of(photo))
        return detect_zero_shot(
            clip,
            photo,
            bank,
            boxes=boxes if proposed is None else proposed.boxes,
            logits=None if proposed is None else proposed.logits,
            objectness=options.objectness,
            how=options.how,
            route=options.clip.route,
            size=options.clip.size,
            threshold=options.threshold,
            limit=options.limit,
            suppression=options.suppression(),
            matcher=matcher,
        )

    return Finder(clip.name, bank.names, find)


def _boxes(given: PhotoRegions) -> Boxes | None:
    return masks_to_boxes(given.masks) if given.boxes is None and given.masks is not None else given.boxes


def _describe(photo: Path, result: DetectionResult) -> dict[str, Any]:
    rows = zip(result.words, result.scores.tolist(), result.boxes.tolist(), strict=True)
    objects = [{"word": word, "score": score, "box": box} for word, score, box in rows]
    return {"photo": photo, "size": result.size, "objects": objects}


def _row(found: Mapping[str, Any]) -> tuple[str, float, str]:
    return found["word"], found["score"], " ".join(f"{side:.0f}" for side in found["box"])
