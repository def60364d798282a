"""The verb ``propose``: boxes, and masks, of what may be things in photos, as a COCO file."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import PIL.Image
import torch

from closeup.cli.fields import Flag, Maybe, Photos
from closeup.cli.files import check_folder, each, find_photos, output_names, report, save_picture
from closeup.cli.output import show, show_json
from closeup.data.atomic import write_json
from closeup.data.images import open_image
from closeup.data.rle import encode_mask
from closeup.errors import InputError
from closeup.geometry import xyxy_to_xywh
from closeup.heads.rpn import Proposals, Proposer, load_proposer
from closeup.predict import propose_boxes
from closeup.regions.propose import ProposalPolicy, Proposed, propose
from closeup.viz import draw_regions

DEFAULTS = ProposalPolicy()
CATEGORY = {"id": 1, "name": "region", "supercategory": ""}


@dataclass(frozen=True)
class Options:
    """Find regions in photos: boxes and masks of what may be things, without labels or trained weights.

    Graph-based segments of one colour, and what neighbouring segments make together; or with --proposer the boxes of a
    trained proposer, with a score. The file is COCO's, of one category, "region"; any reader of COCO takes it, and so
    does closeup adapt.

        closeup propose photos/ --out proposals.json
        closeup propose photos/ --proposer my-rpn --limit 300 --out proposals.json
        closeup propose photos/ --out proposals.json --limit 100 --pictures 20
        closeup adapt clipself --images "coco:proposals.json?images=photos&masks=no" --regions proposals --out my-clip
    """

    photos: Photos
    """Photos: files, folders, globs."""

    out: Path
    """The COCO file."""

    proposer: Maybe[Path] = None
    """The folder of a trained proposer, as closeup train rpn makes one; only --limit is asked of it."""

    side: int = DEFAULTS.side
    """Longest side in pixels at which photos are segmented: larger finds smaller things, and takes longer."""

    limit: int = DEFAULTS.limit
    """The most regions of a photo; the largest are kept."""

    smallest: float = DEFAULTS.smallest
    """Least share of a photo that a region may cover."""

    largest: float = DEFAULTS.largest
    """Largest share of a photo that a region may cover."""

    duplicate: float = DEFAULTS.duplicate
    """Of two regions whose boxes overlap by more than this share of their union, the larger is kept."""

    pictures: int = 0
    """Of so many photos a picture with the boxes drawn is written, into a folder named after the COCO file."""

    json: Flag = False
    """Print one json document with counts and timings."""

    def policy(self) -> ProposalPolicy:
        """Return how regions are found; ConfigError for a value outside its range."""
        return ProposalPolicy(
            side=self.side,
            limit=self.limit,
            smallest=self.smallest,
            largest=self.largest,
            duplicate=self.duplicate,
        )


def run(options: Options) -> int:
    """Find the regions of every photo and write them."""
    policy = options.policy()
    _check_out(options.out)
    photos, failures = find_photos(options.photos)
    drawn = _picture_paths(photos, options)

    proposer = None if options.proposer is None else load_proposer(options.proposer)

    def work(photo: Path) -> Found:
        picture = open_image(photo)
        clock = time.perf_counter()
        proposed = propose(picture, policy) if proposer is None else _best(proposer, picture, policy.limit)
        seconds = time.perf_counter() - clock
        if photo in drawn:
            save_picture(draw_regions(picture, boxes=proposed.boxes), drawn[photo])
        rows = _annotations(proposed) if isinstance(proposed, Proposed) else _scored(proposed)
        return Found((picture.height, picture.width), list(rows), seconds)

    done, bad = each(photos, work, "proposing")
    failures += bad
    if not done:
        raise InputError(f"None of the {len(photos)} photos can be used. {failures[0].reason}")
    root = Path(os.path.commonpath([photo.absolute().parent for photo, _ in done]))
    write_json(options.out, _document(done, root))
    spec = f"coco:{options.out}?images={root}"
    written = [options.out, *(drawn[photo] for photo, _ in done if photo in drawn)]
    regions, seconds = sum(len(found.rows) for _, found in done), fmean(found.seconds for _, found in done)
    if options.json:
        told = [{"photo": photo, "regions": len(found.rows), "seconds": found.seconds} for photo, found in done]
        failed = [{"photo": failure.name, "reason": failure.reason} for failure in failures]
        counts = {"regions": regions, "seconds_per_photo": seconds}
        show_json({"data": spec, "photos": told, **counts, "failed": failed, "written": written})
    else:
        show(
            f"{regions} regions in {len(done)} photos, {seconds:.2f} s a photo.",
            *(f"Written: {path}" for path in written),
            # Without masks, which would all be decoded at the photos' own size.
            f'To adapt on the boxes: --images "{spec}&masks=no" --regions proposals',
        )
    return report(failures, len(done))


@dataclass(frozen=True, slots=True)
class Found:
    """What was found in a photo of (height, width): COCO annotations without their ids, and how long it took."""

    size: tuple[int, int]
    rows: list[dict[str, Any]]
    seconds: float


def _check_out(out: Path) -> None:
    if out.suffix.lower() != ".json" or out.is_dir():
        raise InputError(f"--out {out}: name a file that ends with .json.")
    check_folder(out.parent)


def _picture_paths(photos: Sequence[Path], options: Options) -> dict[Path, Path]:
    """Return where the pictures of the first photos go; InputError where one would replace a photo."""
    if options.pictures < 0:
        raise InputError(f"--pictures {options.pictures}: give a number of photos, 0 for none.")
    names, folder = output_names(photos), options.out.with_suffix("")
    if options.pictures:
        check_folder(folder, "--pictures beside")
    paths = {photo: folder / f"{names[photo]}.png" for photo in photos[: options.pictures]}
    taken = {path.resolve() for path in paths.values()} & {photo.resolve() for photo in photos}
    if taken:
        raise InputError(f"--out {options.out}: {taken.pop()} is one of the photos. Choose another name.")
    return paths


def _annotations(found: Proposed) -> Iterator[dict[str, Any]]:
    """Yield COCO annotations of a photo's regions without their ids; masks are scaled to the photo one at a time."""
    for row, box in enumerate(xyxy_to_xywh(found.boxes).tolist()):
        mask = found.masks[torch.tensor([row])][0].numpy()
        area = float(mask.sum())
        yield {"category_id": 1, "bbox": box, "area": area, "iscrowd": 0, "segmentation": encode_mask(mask)}


def _best(proposer: Proposer, picture: PIL.Image.Image, limit: int) -> Proposals:
    found = propose_boxes(proposer, picture)
    return Proposals(found.boxes[:limit], found.logits[:limit])


def _scored(found: Proposals) -> Iterator[dict[str, Any]]:
    """Yield COCO annotations of a photo's boxes without their ids, with the objectness of each, 0 to 1."""
    scores = found.logits.sigmoid().tolist()
    for (x, y, width, height), score in zip(xyxy_to_xywh(found.boxes).tolist(), scores, strict=True):
        area = width * height
        yield {"category_id": 1, "bbox": [x, y, width, height], "area": area, "iscrowd": 0, "score": score}


def _document(done: Sequence[tuple[Path, Found]], root: Path) -> dict[str, Any]:
    """Return a COCO instances document whose images are named by their paths below ``root``."""
    images, annotations = [], []
    for number, (photo, found) in enumerate(done, start=1):
        height, width = found.size
        name = photo.absolute().relative_to(root).as_posix()
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        annotations += [{"image_id": number, **row} for row in found.rows]
    rows = [{"id": number, **row} for number, row in enumerate(annotations, start=1)]
    return {
        "info": {"description": "Regions proposed by Closeup"},
        "images": images,
        "categories": [CATEGORY],
        "annotations": rows,
    }
