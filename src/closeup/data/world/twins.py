"""Pairs of things that differ in one attribute alone, side by side: can they be told apart?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image
import torch

from closeup.data.record import Description, Record
from closeup.data.world.captions import describe
from closeup.data.world.lexicon import ATTRIBUTES, NAMES, THINGS, WORLD
from closeup.data.world.render import render
from closeup.data.world.scene import Scene, Theme, sample_grounds, sample_thing
from closeup.errors import InputError, suggest
from closeup.geometry import masks_to_boxes

USUAL = {"material": "plastic", "pattern": "plain", "transparency": "opaque"}
"""How twins look where their family does not say otherwise."""

UNSAID = ("plain", "opaque")
"""Values that go without saying in a phrase, so that no phrase would tell a twin that has them."""


class Twins:
    """Reads scene number ``i``: two things of one shape that differ in one family of attributes, on one ground.

    The right caption of each names its colour, the family and its shape ("red striped star"), its only wrong one is
    the other's. A scene depends on the family, the seed and ``i`` alone. ``side`` is that of the square picture in
    pixels.

    Raises:
        InputError: the family is unknown, or a number is below 1.
    """

    names = NAMES
    things = THINGS

    def __init__(self, family: str = "pattern", *, count: int = 100, side: int = 192, seed: int = 0) -> None:
        if family not in ATTRIBUTES:
            raise InputError(f"Unknown family {family!r} of attributes. {suggest(family, ATTRIBUTES)}")
        if count < 1 or side < 1:
            raise InputError(f"`count` and `side` must be at least 1, but got {count} and {side}.")
        self._family, self._count, self._side, self._seed = family, count, side, seed

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int, /) -> Record:
        if not 0 <= index < self._count:
            raise IndexError(f"pair {index} of {self._count}")
        rng = np.random.default_rng([self._seed, 11, list(ATTRIBUTES).index(self._family), index])
        scene = self._scene(rng)
        drawn = render(scene, (self._side, self._side))
        masks = torch.from_numpy(drawn.masks)
        label = NAMES.index(scene.things[0].shape)
        phrases = [describe(thing, ("colour", self._family)) for thing in scene.things]
        return Record(
            id=f"twins-{self._family}-{self._seed}-{index:06d}",
            image=PIL.Image.fromarray(drawn.image),
            size=(self._side, self._side),
            boxes=masks_to_boxes(masks),
            masks=masks,
            labels=torch.tensor([label, label]),
            label_map=torch.from_numpy(np.where(drawn.masks.any(axis=0), label, drawn.grounds)),
            attributes=tuple(thing.attributes for thing in scene.things),
            descriptions=(Description(phrases[0], (phrases[1],)), Description(phrases[1], (phrases[0],))),
        )

    def _scene(self, rng: np.random.Generator) -> Scene:
        said = [value for value in ATTRIBUTES[self._family] if value not in UNSAID]
        first = said[int(rng.integers(len(said)))]
        others = [value for value in WORLD.alternatives(self._family, first) if value not in UNSAID]
        second = others[int(rng.integers(len(others)))]
        theme = Theme({**USUAL, self._family: first})
        left = sample_thing(rng, x=66.0, y=128.0, radius=46.0, theme=theme, freedom=0.3)
        changed: dict[str, Any] = {self._family: second}
        right = replace(left, x=190.0, **changed)
        grounds, borders = sample_grounds(rng, 256.0, Theme(), most=1)
        return Scene(256, 256, grounds, borders, (left, right), int(rng.integers(2**31)))
