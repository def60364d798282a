"""The verb ``classify``: words for boxes, masks or annotated regions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from rich.table import Table
from tyro.conf import arg

from closeup._types import Boxes, Masks
from closeup.cli.choices import Encoder
from closeup.cli.fields import Flag, Maybe, Photos
from closeup.cli.files import each, find_photos, report
from closeup.cli.matcher import MatcherOptions
from closeup.cli.model import ModelOptions
from closeup.cli.output import show, show_json, table
from closeup.cli.save import Format, Saver
from closeup.cli.words import WordOptions
from closeup.errors import InputError
from closeup.geometry import masks_to_boxes
from closeup.models.encode_regions import MASKED
from closeup.predict import RegionResult, classify
from closeup.predict.matching import crop_of
from closeup.predict.region_file import PhotoRegions, RegionFile
from closeup.predict.words import as_bank
from closeup.regions import CropPolicy
from closeup.regions.masked_crops import OVSEG


@dataclass(frozen=True)
class Options:
    """Name boxes, masks or annotated regions of photos.

    Regions come from a json file: [[x0, y0, x1, y1], ...] in pixels for one photo, a list of COCO annotations for
    one photo, or a COCO file whose images are found by their file names: instances, or panoptic with its folder
    of PNGs beside it.

        closeup classify photo.jpg --regions boxes.json --words "dog, cat, frisbee"
        closeup classify photos/ --regions instances.json --words instances.json --json
        closeup classify photo.jpg --regions masks.json --words words.txt --how masked-crop --out out/
        closeup classify photo.jpg --regions boxes.json --words words.txt --how crop --matcher my-matcher
    """

    photos: Photos
    """Photos: files, folders, globs."""

    regions: Path
    """A json file of boxes or masks."""

    text: Annotated[WordOptions, arg(name="")]

    how: Encoder = "dense"
    """The region encoder: pool the dense map (one pass for all regions), encode each cut-out, masked or not, or give
    each mask a class token of its own (one pass too)."""

    boxes: Flag = False
    """Take the boxes of regions that have masks too."""

    top: int = 5
    """Words told for each region, best first."""

    enlarge: float = 1.0
    """Factor by which crops are enlarged about their centre."""

    out: Maybe[Path] = None
    """A folder to write into, or the picture of a single photo; nothing is written unless given."""

    format: tuple[Format, ...] = ("png",)
    """What to write: pictures, arrays, one COCO file of all photos."""

    json: Flag = False
    """Print one json document instead of tables."""

    by: Annotated[MatcherOptions, arg(name="")] = field(default_factory=MatcherOptions)

    clip: Annotated[ModelOptions, arg(name="")] = field(default_factory=ModelOptions)


def run(options: Options) -> int:
    """Classify the regions of every photo."""
    options.clip.check()
    if options.top < 1:
        raise InputError(f"--top {options.top}: give at least one word a region.")
    photos, failures = find_photos(options.photos)
    source = RegionFile(options.regions)
    source.check(photos)
    saver = None if options.out is None else Saver(options.out, options.format, photos)
    vocabulary, templates = options.text.vocabulary(), options.text.template_set()
    clip = options.clip.load()
    matcher = options.by.load(clip, options.how)
    usual = OVSEG if options.how in MASKED else crop_of(matcher, options.how, None) or CropPolicy()
    crop = replace(usual, enlarge=options.enlarge)
    bank = as_bank(clip, vocabulary, templates, matcher)

    def work(photo: Path) -> dict[str, Any]:
        found = source.of(photo)
        boxes, masks = _shapes(found, options)
        result = classify(
            clip,
            photo,
            bank,
            boxes=boxes,
            masks=masks,
            how=options.how,
            top=options.top,
            route=options.clip.route,
            size=options.clip.size,
            crop=crop,
            matcher=matcher,
        )
        if saver is not None:
            saver.save(photo, result)
        return _describe(photo, result, found.names)

    done, bad = each(photos, work, "classifying")
    failures += bad
    if saver is not None:
        saver.finish()
    written = [] if saver is None else saver.written
    told = [told for _, told in done]
    if options.json:
        failed = [{"photo": failure.name, "reason": failure.reason} for failure in failures]
        show_json({"model": clip.name, "words": bank.names, "photos": told, "failed": failed, "written": written})
    else:
        for photo in told:
            show(str(photo["photo"]), _table(photo), "")
        show(*(f"Written: {path}" for path in written))
    return report(failures, len(done))


def _shapes(found: PhotoRegions, options: Options) -> tuple[Boxes | None, Masks | None]:
    """Return the boxes or the masks, or both for masked crops of given boxes."""
    if options.how in MASKED:
        if found.masks is None:
            raise InputError(f"--how {options.how} needs masks, but {options.regions} holds boxes. Use --how crop.")
        return (found.boxes if options.boxes else None), found.masks
    if found.masks is None:
        return found.boxes, None
    if not options.boxes:
        return None, found.masks
    return (masks_to_boxes(found.masks) if found.boxes is None else found.boxes), None


def _describe(photo: Path, result: RegionResult, annotated: tuple[str, ...] | None) -> dict[str, Any]:
    boxes = masks_to_boxes(result.masks) if result.boxes is None and result.masks is not None else result.boxes
    regions = []
    for index, box in enumerate([] if boxes is None else boxes.tolist()):
        columns = (result.labels[index], result.scores[index], result.probabilities[index])
        best = [
            {"word": result.names[label], "score": score, "probability": probability}
            for label, score, probability in zip(*(column.tolist() for column in columns), strict=True)
        ]
        row: dict[str, Any] = {"box": box, **best[0], "top": best}
        regions.append(row if annotated is None else {**row, "annotated": annotated[index]})
    return {"photo": photo, "size": result.size, "regions": regions}


def _table(told: dict[str, Any]) -> Table:
    annotated = any("annotated" in row for row in told["regions"])
    rows = [
        [
            index,
            " ".join(f"{side:.0f}" for side in row["box"]),
            row["word"],
            row["probability"],
            row["score"],
            ", ".join(other["word"] for other in row["top"][1:]),
            *([row["annotated"]] if annotated else []),
        ]
        for index, row in enumerate(told["regions"])
    ]
    columns = ["region", "box (x0 y0 x1 y1)", "word", "probability", "score", "then"]
    return table([*columns, "annotated"] if annotated else columns, rows)
