"""The verb ``demo``: the main job, on the models and the pictures that ship inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image
import torch

from closeup.cli.fields import Flag
from closeup.cli.files import check_folder, counted, save_picture, track
from closeup.cli.output import show, show_json, table
from closeup.data.things import thing_names
from closeup.data.world import World
from closeup.data.world.captions import noun_phrase, with_article
from closeup.errors import InputError
from closeup.heads.dense_predictor import load_dense_predictor
from closeup.heads.mask_proposer import load_mask_proposer
from closeup.heads.saved import AnyDetector, load_detector
from closeup.heads.segmenter import load_segmenter
from closeup.models import Clip, load
from closeup.predict import classify, clusters, detect, evaluate_regions, heatmap, panoptic, segment
from closeup.predict.catseg import CatSegScorer
from closeup.predict.dense_predictor import DensePredictorScorer
from closeup.predict.scorers import Scorer
from closeup.predict.segment import segment_by
from closeup.predict.segment_masks import OvSegScorer
from closeup.predict.words import detector_bank
from closeup.text import TextBank, Vocabulary, build_bank
from closeup.viz import draw_sheet

SIDE = 256
"""Side of the demo's pictures in pixels."""

PICTURES = 4
SURE = 0.3
"""The score from which an object is drawn."""
CLUSTERS = 6
MASK_ADAPTED, PROPOSER, SEGMENTER, PREDICTOR = "tiny-maskadapt", "tiny-masks", "tiny-catseg", "tiny-denseclip"


@dataclass(frozen=True)
class Options:
    """See in a minute what the library does: boxes, pixels and phrases in words, before and after adapting.

    Draws scenes of the embedded world as picture files. Of each, tiny and tiny-clipself (the same model once it has
    taught itself with CLIPSelf) name the boxes, show where a phrase is, name every pixel and cluster the dense map.
    tiny-fvit, a detector on tiny-clipself, finds and outlines the objects, of shapes that it never learned too; OVSeg,
    CAT-Seg and a panoptic way name every pixel.
    A table tells how well both recognise regions from crops and from the dense map.

        closeup demo
        closeup demo --out somewhere --scenes 100
        closeup demo --models tiny my-clip
    """

    out: Path = Path("out")
    """The folder for the pictures."""

    scenes: int = 60
    """Scenes of the table."""

    models: tuple[str, ...] = ("tiny", "tiny-clipself")
    """The models to show, one below the other: names as in "tiny" or "ViT-B-16/openai", or folders of models."""

    detector: Path = Path("tiny-fvit")
    """The detector to show: one that ships, or a folder of one that was trained."""

    json: Flag = False
    """Print one json document instead of the table."""


def run(options: Options) -> int:
    """Draw, name, measure, and say where everything is."""
    if not options.models or options.scenes < 1:
        raise InputError(f"--models {' '.join(options.models)} --scenes {options.scenes}: give at least one of each.")
    check_folder(options.out)
    world = World("test", count=max(options.scenes, PICTURES), size=(SIDE, SIDE))
    clips = [load(name) for name in options.models]
    banks = [build_bank(clip, Vocabulary(world.names)) for clip in clips]
    models = list(zip(clips, banks, strict=True))
    detector = load_detector(options.detector)
    things = detector_bank(detector, thing_names(world))
    written = [path for index in track(range(PICTURES), "naming") for path in _show(models, world, index, options.out)]
    photos = [options.out / "photos" / f"scene-{index}.png" for index in range(PICTURES)]
    written += [_found(detector, photo, things) for photo in photos]
    written += _segmented(photos)
    rows = [row for clip, bank in models for row in _measured(clip, bank, world, options.scenes)]
    if options.json:
        show_json({"rows": rows, "written": written})
        return 0
    show(
        table(list(rows[0]), [list(row.values()) for row in rows]),
        f"{options.scenes} scenes of the world; top1 and top5 are means over classes. "
        "The gap between crop and dense is what the methods here close.",
        *(f"Written: {path}" for path in written),
    )
    return 0


def _found(detector: AnyDetector, photo: Path, things: TextBank) -> Path:
    """Write beside a photo what a detector finds in it among the world's things."""
    picture = detect(detector, photo, things, threshold=SURE).picture()
    return save_picture(picture, photo.parent.parent / f"{photo.stem}-found.png")


def _segmented(photos: Sequence[Path]) -> list[Path]:
    """Write beside each photo what trained ways call every pixel: OVSeg, CAT-Seg, DenseCLIP, and a panoptic one."""
    clip, proposer, world = load(MASK_ADAPTED), load_mask_proposer(PROPOSER), World()
    scorers: dict[str, Scorer] = {
        "OVSeg, and what no mask covers": OvSegScorer(clip, proposer, gaps=True),
        "CAT-Seg": CatSegScorer(load_segmenter(SEGMENTER)),
        "DenseCLIP": DensePredictorScorer(load_dense_predictor(PREDICTOR)),
    }
    written = []
    for photo in track(photos, "segmenting"):
        pictures = {name: segment_by(scorer, photo, world.names).picture() for name, scorer in scorers.items()}
        found = panoptic(proposer.clip, proposer, photo, world.names, things=thing_names(world))
        pictures["panoptic"] = found.picture()
        sheet = draw_sheet(list(pictures.values()), list(pictures), columns=len(pictures))
        written.append(save_picture(sheet, photo.parent.parent / f"{photo.stem}-segmented.png"))
    return written


def _measured(clip: Clip, bank: TextBank, world: World, scenes: int) -> list[dict[str, Any]]:
    with counted(f"measuring {clip.name}") as tell:
        report = evaluate_regions(clip, world, words=bank, size=SIDE, limit=scenes, on_progress=tell)
    return [{"model": clip.name, **row} for row in report.table()]


def _show(models: Sequence[tuple[Clip, TextBank]], world: World, index: int, out: Path) -> list[Path]:
    """Write one scene as a photo, and beside it a sheet of what the models make of the file."""
    record, things = world.with_things(index)
    photo = save_picture(record.load(), out / "photos" / f"scene-{index}.png")
    boxes = torch.zeros(0, 4) if record.boxes is None else record.boxes[: len(things)]
    phrase = noun_phrase(things[-1].shape, {"colour": things[-1].colour})
    pictures: list[PIL.Image.Image] = []
    titles: list[str] = []
    for clip, bank in models:
        pictures += [
            classify(clip, photo, bank, boxes=boxes, size=SIDE).picture(),
            heatmap(clip, photo, [phrase], size=SIDE).picture(),
            segment(clip, photo, bank, size=SIDE).picture(),
        ]
        titles += [f"boxes by {clip.name}", f"where is {with_article(phrase)}?", "every pixel"]
    sheet = draw_sheet(pictures, titles, columns=len(pictures) // len(models))
    alike = clusters({clip.name: clip for clip, _ in models}, photo, CLUSTERS, size=SIDE)
    return [
        photo,
        save_picture(sheet, out / f"scene-{index}.png"),
        save_picture(alike, out / f"scene-{index}-clusters.png"),
    ]
