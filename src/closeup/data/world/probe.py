"""Questions with one right answer about close-ups, to watch what a CLIP learns: shape, each attribute, ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import PIL.Image

from closeup.data.world.captions import noun_phrase, with_article
from closeup.data.world.lexicon import ATTRIBUTES, GROUNDS, SHAPES
from closeup.data.world.render import render
from closeup.data.world.scene import Scene, sample_closeup, sample_ground


@dataclass(frozen=True, slots=True)
class Question:
    """A picture, the family that is asked about, the captions to choose from and the number of the right one."""

    picture: PIL.Image.Image
    family: str
    choices: tuple[str, ...]
    answer: int


def attribute_probe(count: int, *, side: int = 64, seed: int = 0) -> list[Question]:
    """Return the questions of ``count`` close-ups (shape and four attributes each) and ``count // 6`` grounds.

    An attribute's choices keep the true noun and change that one attribute: "a red star", "a blue star".
    The pictures come from seeds that no split and no training stream uses.
    """
    questions: list[Question] = []
    for index in range(count):
        rng = np.random.default_rng([seed, 5, index])
        scene = sample_closeup(rng)
        thing = max(scene.things, key=lambda thing: thing.radius)
        picture = _draw(scene, side)
        shapes = tuple(with_article(shape) for shape in SHAPES)
        questions.append(Question(picture, "shape", shapes, tuple(SHAPES).index(thing.shape)))
        for family, values in ATTRIBUTES.items():
            choices = tuple(with_article(noun_phrase(thing.shape, {family: value}, say_all=True)) for value in values)
            questions.append(Question(picture, family, choices, values.index(thing.attributes[family])))
    for index in range(count // 6):
        scene = sample_ground(np.random.default_rng([seed, 6, index]))
        questions.append(Question(_draw(scene, side), "ground", tuple(GROUNDS), [*GROUNDS].index(scene.grounds[0])))
    return questions


def _draw(scene: Scene, side: int) -> PIL.Image.Image:
    return PIL.Image.fromarray(render(scene, scene.pixels(side)).image)
