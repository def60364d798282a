"""The verb ``world``: look at the embedded world, or write it in the form of a public data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import PIL.Image
from tyro.conf import Positional

from closeup.cli.fields import Flag
from closeup.cli.files import check_folder, check_picture, save_picture, track
from closeup.cli.output import show, show_json, table
from closeup.data.fgovd import BENCHMARKS
from closeup.data.record import Record
from closeup.data.world import World
from closeup.data.world.export import export_world
from closeup.errors import InputError
from closeup.viz import draw_segmentation, draw_sheet


@dataclass(frozen=True)
class Show:
    """Draw some scenes of the world on one sheet, with a caption each.

    The world is seeded and endless: scene number i of a split is the same on every machine.

        closeup world show
        closeup world show --count 12 --split test --out world.png
        closeup world show --count 1 --first 41 --truth
    """

    count: int = 6
    """Scenes to draw."""

    first: int = 0
    """The number of the first scene."""

    split: str = "val"
    """The split: train, val or test."""

    size: int = 256
    """Side of a scene in pixels."""

    seed: int = 0
    """Another seed is another world of the same kind."""

    truth: Flag = False
    """Draw the true class of every pixel over the scenes."""

    out: Path = Path("world.png")
    """The picture to write."""

    json: Flag = False
    """Print one json document with the captions and regions of the scenes."""


@dataclass(frozen=True)
class Export:
    """Write scenes of the world in the form of a public data set.

    The forms are those of COCO (instances, panoptic, captions), of ADE20K and of FG-OVD; what reads those reads this.

        closeup world export world/ --split val --count 500
        closeup world export world-ade/ --form ade20k --split train --count 2000
        closeup world export world-fg/ --form fgovd --json
    """

    folder: Positional[Path]
    """The folder to write into."""

    form: str = "coco"
    """The form: coco, ade20k or fgovd."""

    split: str = "val"
    """The split: train, val or test."""

    count: int = 500
    """Scenes to write."""

    size: int = 256
    """Side of a scene in pixels."""

    seed: int = 0
    """Another seed is another world of the same kind."""

    json: Flag = False
    """Print one json document that says what was written and how it is read."""


Options = {"show": Show, "export": Export}

SPECS = {
    "coco": tuple(f"{kind}:{{folder}}?split={{split}}" for kind in ("coco", "coco-panoptic", "coco-captions")),
    "ade20k": ("labelmaps:{folder}/{split}?offset=1&ignore=0",),
    "fgovd": tuple(f"fgovd:{{folder}}?split={name}" for name in BENCHMARKS),
}
"""What a form is read as again, by ``--data``."""


def run(options: Show | Export) -> int:
    """Draw or write scenes."""
    return _show(options) if isinstance(options, Show) else _export(options)


def _show(options: Show) -> int:
    if options.count < 1 or options.first < 0:
        raise InputError(f"--count {options.count} --first {options.first}: give at least one scene, counted from 0.")
    last = options.first + options.count
    world = World(options.split, count=last, size=(options.size, options.size), seed=options.seed)
    check_picture(options.out)
    records = [world[index] for index in range(options.first, last)]
    pictures = [_draw(record, options.truth) for record in records]
    path = save_picture(draw_sheet(pictures, [record.id for record in records]), options.out)
    if options.json:
        show_json({"picture": path, "names": world.names, "scenes": [_describe(record) for record in records]})
        return 0
    rows = [(record.id, record.count, record.captions[0] if record.captions else "") for record in records]
    show(table(["scene", "regions", "a caption"], rows), f"Written: {path}")
    return 0


def _draw(record: Record, truth: Flag) -> PIL.Image.Image:
    if not truth or record.label_map is None:
        return record.load()
    return draw_segmentation(record.image, record.label_map, World.names)


def _describe(record: Record) -> dict[str, object]:
    boxes = [] if record.boxes is None else record.boxes.tolist()
    labels = [] if record.labels is None else [World.names[label] for label in record.labels.tolist()]
    regions = [
        {"box": box, "name": name, "attributes": dict(attributes)}
        for box, name, attributes in zip(boxes, labels, record.attributes, strict=True)
    ]
    return {"id": record.id, "captions": record.captions, "regions": regions}


def _export(options: Export) -> int:
    check_folder(options.folder)
    folder = export_world(
        options.folder,
        split=options.split,
        count=options.count,
        size=(options.size, options.size),
        seed=options.seed,
        form=options.form,
        progress=lambda numbers: track(list(numbers), "drawing"),
    )
    reading = [spec.format(folder=folder, split=options.split) for spec in SPECS.get(options.form, ())]
    if options.json:
        show_json({"folder": folder, "form": options.form, "scenes": options.count, "read_as": reading})
        return 0
    show(f"Written: {options.count} scenes below {folder}", *(f"Read it with --data '{spec}'" for spec in reading))
    return 0
