"""Pictures beside the tables of detection: what is there, and what each model finds or names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import PIL.Image
import torch

from closeup._types import Boxes
from closeup.data.record import Record
from closeup.data.things import thing_names
from closeup.data.world import World
from closeup.heads.saved import load_detector
from closeup.models.clip import Clip
from closeup.predict import classify, detect
from closeup.predict.result import Result
from closeup.viz import draw_regions, draw_sheet, name_colours

SCENES = (3, 7, 11)
SURE = 0.3
"""The score from which a detection is drawn."""
TRUTH = "truth"
THINGS = thing_names(World())


def found_sheet(detectors: Mapping[str, str]) -> PIL.Image.Image:
    """Return a few held-out scenes, and what each trained detector finds in them: a row per scene."""
    loaded = {title: load_detector(folder) for title, folder in detectors.items()}

    def finder(title: str) -> Callable[[Record], Result]:
        return lambda record: detect(loaded[title], record.load(), THINGS, threshold=SURE)

    return _sheet({title: finder(title) for title in loaded})


def named_sheet(clips: Mapping[str, Clip], size: int) -> PIL.Image.Image:
    """Return a few held-out scenes, and what each model calls their true boxes: a row per scene."""

    def namer(clip: Clip) -> Callable[[Record], Result]:
        return lambda record: classify(clip, record.load(), THINGS, boxes=_things(record)[0], size=size)

    return _sheet({title: namer(clip) for title, clip in clips.items()})


def _sheet(finders: Mapping[str, Callable[[Record], Result]]) -> PIL.Image.Image:
    world = World("val", count=max(SCENES) + 1)
    pictures, titles = [], []
    for scene in SCENES:
        record = world[scene]
        boxes, words = _things(record)
        colours = name_colours(THINGS)
        drawn = draw_regions(
            record.load(), boxes=boxes, texts=words, colours=[colours[THINGS.index(word)] for word in words]
        )
        pictures += [drawn, *(find(record).picture() for find in finders.values())]
        titles += [TRUTH, *finders]
    return draw_sheet(pictures, titles, columns=1 + len(finders))


def _things(record: Record) -> tuple[Boxes, list[str]]:
    """Return the boxes of a scene's things, and their words."""
    if record.boxes is None or record.labels is None:
        return torch.zeros(0, 4), []
    words = [World.names[label] for label in record.labels.tolist()]
    rows = [row for row, word in enumerate(words) if word in THINGS]
    return record.boxes[rows].float(), [words[row] for row in rows]
