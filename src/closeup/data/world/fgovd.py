"""The world's things with their hard negatives, in the files of the FG-OVD benchmark."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from closeup.data.atomic import write_json
from closeup.data.record import Record
from closeup.data.world.captions import full_caption, hard_negatives
from closeup.data.world.scene import Thing
from closeup.data.world.world import World
from closeup.data.write_pictures import write_picture
from closeup.geometry import xyxy_to_xywh

_LEAST_PIXELS = 400
"""A smaller thing shows too little of its pattern and material to be asked about."""

CHANGES: Mapping[str, int | str] = MappingProxyType(
    {
        "1_attributes": 1,
        "2_attributes": 2,
        "3_attributes": 3,
        "color": "colour",
        "material": "material",
        "pattern": "pattern",
        "transparency": "transparency",
    }
)
"""What changes in the negatives of each benchmark file; ``shuffle_negatives`` takes other things' captions."""

SHUFFLED = "shuffle_negatives"


@dataclass(slots=True)
class _Benchmark:
    """One benchmark file in the making; every caption, right or wrong, is a category of its own."""

    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    categories: list[dict[str, Any]] = field(default_factory=list)

    def caption(self, text: str) -> int:
        """Add a caption and return its category id."""
        number = len(self.categories) + 1
        blank = {"synset": "", "synonyms": [], "def": "", "frequency": "f", "image_count": 1, "instance_count": 1}
        self.categories.append({"id": number, "name": text, **blank})
        return number


def write_fgovd(world: World, folder: Path, progress: Callable[[Iterable[int]], Iterable[int]]) -> None:
    """Write ``images/`` and one json a benchmark: a thing's box, its full caption, its negatives in order.

    Form and names: ``lorebianchi98/FG-OVD`` (arXiv 2311.17518), ten negatives where the family has as many.
    """
    files = {name: _Benchmark() for name in (*CHANGES, SHUFFLED)}
    things: list[tuple[int, Thing, list[float]]] = []
    for index in progress(range(len(world))):
        record, shown = world.with_things(index)
        name = write_picture(record, folder / "images")
        for benchmark in files.values():
            benchmark.images.append(_image(index, name, record))
        things.extend((index, thing, box) for thing, box in _large(record, shown))
    pool = sorted({full_caption(thing) for _, thing, _ in things})
    for number, (index, thing, box) in enumerate(things):
        rng = np.random.default_rng([world.seed, 7, number])
        for name, benchmark in files.items():
            negatives = (
                _others(pool, full_caption(thing), rng)
                if name == SHUFFLED
                else hard_negatives(thing, rng, changes=CHANGES[name])
            )
            _annotate(benchmark, index, thing, box, negatives)
    for name, benchmark in files.items():
        write_json(
            folder / f"{name}.json",
            {"images": benchmark.images, "annotations": benchmark.annotations, "categories": benchmark.categories},
        )


def _image(index: int, name: str, record: Record) -> dict[str, Any]:
    height, width = record.size or (0, 0)
    return {
        "id": index,
        "file_name": name,
        "height": height,
        "width": width,
        "neg_category_ids": [],
        "not_exhaustive_category_ids": [],
    }


def _large(record: Record, shown: tuple[Thing, ...]) -> list[tuple[Thing, list[float]]]:
    """Return the things that show enough of themselves, with their boxes as x, y, width, height."""
    if record.masks is None or record.boxes is None:
        return []
    boxes = xyxy_to_xywh(record.boxes).tolist()
    pixels = record.masks.flatten(1).sum(dim=1).tolist()
    return [(thing, boxes[row]) for row, thing in enumerate(shown) if pixels[row] >= _LEAST_PIXELS]


def _others(pool: list[str], own: str, rng: np.random.Generator, count: int = 10) -> tuple[str, ...]:
    picked = [pool[int(i)] for i in rng.permutation(len(pool))[: count + 1]]
    return tuple(caption for caption in picked if caption != own)[:count]


def _annotate(benchmark: _Benchmark, index: int, thing: Thing, box: list[float], negatives: tuple[str, ...]) -> None:
    x, y, width, height = box
    benchmark.annotations.append(
        {
            "id": len(benchmark.annotations) + 1,
            "image_id": index,
            "category_id": benchmark.caption(full_caption(thing)),
            "bbox": box,
            "area": width * height,
            "segmentation": [[x, y, x + width, y, x + width, y + height, x, y + height]],
            "neg_category_ids": [benchmark.caption(text) for text in negatives],
        }
    )
