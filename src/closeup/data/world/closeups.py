"""Close-ups of the world, each with its class and the one caption that tells it from all others."""

from __future__ import annotations

import numpy as np
import PIL.Image
import torch

from closeup.data.record import Record
from closeup.data.world.captions import full_caption
from closeup.data.world.lexicon import SHAPES
from closeup.data.world.render import render
from closeup.data.world.scene import Scene, Thing, sample_closeup
from closeup.errors import InputError


class CloseUps:
    """Reads close-up number ``i`` as a record: a picture of one thing, one label, and a caption that says it all.

    The label is of the picture as a whole, so there is no box. Captions name the class and all four attributes,
    and no two are the same, so each identifies its picture. ``side`` is the longer side in pixels. The pictures
    come from seeds that no split, no training stream and no attribute probe uses.
    """

    names = tuple(SHAPES)
    things = (True,) * len(SHAPES)

    def __init__(self, *, count: int = 240, side: int = 64, seed: int = 0) -> None:
        if count < 1 or side < 1:
            raise InputError(f"`count` and `side` must be at least 1, but got {count} and {side}.")
        self._side = side
        self._scenes = _distinct(count, seed)
        self._seed = seed

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int, /) -> Record:
        scene, thing = self._scenes[index]
        size = scene.pixels(self._side)
        return Record(
            id=f"closeup-{self._seed}-{index:06d}",
            image=PIL.Image.fromarray(render(scene, size).image),
            size=size,
            labels=torch.tensor([self.names.index(thing.shape)]),
            captions=(full_caption(thing),),
            attributes=(thing.attributes,),
        )


def _distinct(count: int, seed: int) -> list[tuple[Scene, Thing]]:
    found: dict[str, tuple[Scene, Thing]] = {}
    number = 0
    while len(found) < count:
        scene = sample_closeup(np.random.default_rng([seed, 7, number]))
        thing = max(scene.things, key=lambda thing: thing.radius)
        found.setdefault(full_caption(thing), (scene, thing))
        number += 1
    return list(found.values())
