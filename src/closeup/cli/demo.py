"""The verb ``demo``: the main job, on the model and the pictures that ship inside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import PIL.Image
import torch

from closeup._types import Boxes
from closeup.cli.fields import Flag
from closeup.cli.files import check_folder, counted, save_picture, track
from closeup.cli.output import show, show_json, table
from closeup.data.world import World
from closeup.data.world.captions import noun_phrase, with_article
from closeup.models import Clip, load
from closeup.predict import classify, evaluate_regions, heatmap, segment
from closeup.text import TextBank, Vocabulary, build_bank
from closeup.viz import draw_sheet, kmeans_sheet

SIDE = 256
"""Side of the demo's pictures in pixels."""

PICTURES = 4


@dataclass(frozen=True)
class Options:
    """See in a minute what the library does: pixels, regions and heat maps in words, and an honest table.

    Draws scenes of the embedded world as picture files, segments them with tiny in words, shows where a phrase is,
    and measures how well regions are recognised from crops and from the dense map.

        closeup demo
        closeup demo --out somewhere --scenes 100
    """

    out: Path = Path("out")
    """The folder for the pictures."""

    scenes: int = 60
    """Scenes of the table."""

    model: str = "tiny"
    """The model to show."""

    json: Flag = False
    """Print one json document instead of the table."""


def run(options: Options) -> int:
    """Draw, segment, measure, and say where everything is."""
    check_folder(options.out)
    clip = load(options.model)
    world = World("test", count=max(options.scenes, PICTURES), size=(SIDE, SIDE))
    bank = build_bank(clip, Vocabulary(world.names))
    written = [
        path for index in track(range(PICTURES), "segmenting") for path in _show(clip, world, index, bank, options.out)
    ]
    with counted("measuring") as tell:
        report = evaluate_regions(clip, world, words=bank, size=SIDE, limit=options.scenes, on_progress=tell)
    report.save(options.out / "regions.json")
    rows = report.table()
    if options.json:
        show_json({"model": clip.name, "rows": rows, "written": [*written, options.out / "regions.json"]})
        return 0
    show(
        table(list(rows[0]), [list(row.values()) for row in rows]),
        f"{report.images} scenes of the world, model {clip.name}; top1 and top5 are means over classes. "
        "The gap between crop and dense is what the methods here close.",
        *(f"Written: {path}" for path in written),
    )
    return 0


def _show(clip: Clip, world: World, index: int, bank: TextBank, out: Path) -> list[Path]:
    """Write one scene as a photo, and beside it a sheet of what the library makes of the file."""
    record, things = world.with_things(index)
    photo = save_picture(record.load(), out / "photos" / f"scene-{index}.png")
    boxes = _things(record.boxes, len(things))
    named = classify(clip, photo, bank, boxes=boxes, how="crop")
    pixels = segment(clip, photo, bank, size=SIDE)
    phrase = noun_phrase(things[-1].shape, {"colour": things[-1].colour})
    warm = heatmap(clip, photo, [phrase], size=SIDE)
    sheet = draw_sheet(
        [named.picture(), pixels.picture(), warm.picture(), _clusters(clip, photo)],
        [
            "regions by their crops",
            "pixels by the dense map",
            f"where is {with_article(phrase)}?",
            "dense map, clustered",
        ],
    )
    return [photo, save_picture(sheet, out / f"scene-{index}.png")]


def _things(boxes: Boxes | None, count: int) -> Boxes:
    return torch.zeros(0, 4) if boxes is None else boxes[:count]


def _clusters(clip: Clip, photo: Path) -> PIL.Image.Image:
    image, _ = clip.preprocess(photo, policy="fit", size=SIDE)
    with torch.no_grad():
        return kmeans_sheet(photo, [("dense map", clip.encode_dense(image[None])[0])], clusters=6)
