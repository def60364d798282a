"""The world as FG-OVD asks about it: things with a full caption each, and captions that are wrong in few attributes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch

from closeup.data.fgovd import BENCHMARKS
from closeup.data.negatives import COUNT, hard_negatives
from closeup.data.record import Description, Record
from closeup.data.world.captions import full_caption
from closeup.data.world.lexicon import NAMES, THINGS, WORLD
from closeup.data.world.scene import Theme, Thing, sample_thing
from closeup.data.world.world import World
from closeup.errors import InputError, suggest

LEAST_PIXELS = 400
"""A smaller thing shows too little of its pattern and material to be asked about."""

SCENES = 16
"""Scenes that are kept for the next benchmark: as many as threads may be reading at a time."""

_STREAM = 2
"""The first of a scene's random streams that are ours; the world itself draws from those before."""


def describe(things: Sequence[Thing], benchmark: str, rng: np.random.Generator) -> tuple[Description, ...]:
    """Return what a benchmark says of each thing: its full caption, and ten wrong ones where there are as many.

    For ``shuffle_negatives`` the wrong ones are full captions of other things, drawn as those of scenes are.

    Raises:
        InputError: the benchmark is none of FG-OVD's eight.
    """
    if benchmark not in BENCHMARKS:
        raise InputError(f"Unknown benchmark {benchmark!r} of FG-OVD. {suggest(benchmark, BENCHMARKS)}")
    changes = BENCHMARKS[benchmark].changes
    described = []
    for right in map(full_caption, things):
        wrong = _others(right, rng) if changes is None else hard_negatives(right, WORLD, rng, changes=changes)
        described.append(Description(right, wrong))
    return tuple(described)


class FineGrainedWorld:
    """Reads the large enough things of a world's scenes as records with descriptions for one benchmark of FG-OVD.

    ``benchmark`` is a name of `closeup.data.fgovd.BENCHMARKS`. Regions are things that show ``least_pixels`` or more of
    themselves, grounds left out; a scene may have none. Record ``i`` depends on the world, benchmark and ``i`` alone.
    ``draw`` draws scenes in the place of the world's own ``with_things``, as ``every_benchmark`` has it.

    Raises:
        InputError: the benchmark is unknown, or ``least_pixels`` is less than 1.
    """

    names = NAMES
    things = THINGS

    def __init__(
        self,
        world: World,
        benchmark: str,
        least_pixels: int = LEAST_PIXELS,
        *,
        draw: Callable[[int], tuple[Record, Sequence[Thing]]] | None = None,
    ) -> None:
        describe((), benchmark, np.random.default_rng(0))
        if least_pixels < 1:
            raise InputError(f"`least_pixels` must be at least 1, but got {least_pixels}.")
        self.world = world
        self.benchmark = benchmark
        self._stream = _STREAM + list(BENCHMARKS).index(benchmark)
        self._least = least_pixels
        self._draw = world.with_things if draw is None else draw

    def __len__(self) -> int:
        return len(self.world)

    def __getitem__(self, index: int, /) -> Record:
        return self.described(index, *self._draw(index))

    def described(self, index: int, record: Record, things: Sequence[Thing]) -> Record:
        """Return the record of scene ``index`` as the world drew it, so that one drawing serves several benchmarks."""
        if record.masks is None or record.boxes is None or record.labels is None:
            raise InputError(f"Record {record.id!r} has no regions; give what `World.with_things` returns.")
        large = torch.nonzero(record.masks[: len(things)].flatten(1).sum(dim=1) >= self._least).flatten()
        kept = large.tolist()
        return replace(
            record,
            boxes=record.boxes[large],
            masks=record.masks[large],
            labels=record.labels[large],
            label_map=None,
            attributes=tuple(record.attributes[row] for row in kept),
            descriptions=describe([things[row] for row in kept], self.benchmark, self.world.rng(index, self._stream)),
        )


def every_benchmark(world: World) -> dict[str, FineGrainedWorld]:
    """Return a world as each of the eight benchmarks, by name in the order of the paper.

    A scene is drawn once for all of them where they are read scene by scene.
    """
    draw = lru_cache(maxsize=SCENES)(world.with_things)
    return {name: FineGrainedWorld(world, name, draw=draw) for name in BENCHMARKS}


def _others(own: str, rng: np.random.Generator) -> tuple[str, ...]:
    found: dict[str, None] = {}
    while len(found) < COUNT:
        caption = full_caption(sample_thing(rng, x=0.0, y=0.0, radius=1.0, theme=Theme()))
        if caption != own:
            found[caption] = None
    return tuple(found)
