"""Pictures with captions for pre-training: close-ups, grounds and scenes, in batches that make each word matter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import PIL.Image

from closeup.data.world.captions import WORDINGS, any_noun, describe, scene_caption, with_article
from closeup.data.world.lexicon import COLOURS, GROUNDS, MATERIALS, SHAPES
from closeup.data.world.render import render
from closeup.data.world.scene import Scene, Theme, sample_closeup, sample_ground, sample_scene

_MENTIONS: tuple[tuple[str, ...], ...] = (
    ("colour",),
    ("colour",),
    ("pattern",),
    ("material",),
    ("transparency",),
    ("colour", "pattern"),
    ("colour", "material"),
    ("colour", "pattern", "material", "transparency"),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the pictures of one batch have in common.

    ``kind`` is ``nouns`` (close-ups called by their noun alone), ``attributes`` (close-ups whose captions
    name ``mention``) or ``scenes``. One wording and one choice among synonyms hold for a whole batch, so
    that captions which mean the same are the same string, and equal captions are not negatives.
    """

    kind: str
    theme: Theme
    mention: tuple[str, ...]
    wording: str
    synonyms: int


def plan_batch(rng: np.random.Generator) -> Plan:
    """Draw the plan of a batch.

    Half are noun-only close-ups and half of these share colour, material and ground: a contrastive model
    names colours long before shapes, and learns shapes only where nothing else tells pictures apart.
    """
    kind = ("nouns", "attributes", "scenes")[int(rng.choice(3, p=(0.5, 0.32, 0.18)))]
    fixed: dict[str, str] = {}
    if kind == "nouns" and rng.random() < 0.5:
        colours, grounds = tuple(COLOURS), tuple(GROUNDS)
        fixed = {
            "colour": colours[int(rng.integers(len(colours)))],
            "ground": grounds[int(rng.integers(len(grounds)))],
            "material": MATERIALS[int(rng.integers(len(MATERIALS)))],
        }
    mention = _MENTIONS[int(rng.integers(len(_MENTIONS)))] if kind == "attributes" else ()
    if kind == "attributes" and rng.random() < 0.4:
        shapes = tuple(SHAPES)
        fixed = {"shape": shapes[int(rng.integers(len(shapes)))]}
    wording = WORDINGS[int(rng.integers(len(WORDINGS)))]
    return Plan(kind, Theme(fixed), mention, wording, int(rng.integers(2**31)))


@dataclass(frozen=True, slots=True)
class WorldStream:
    """Picture number ``i`` of an endless stream, with its caption; a function of the seed and ``i`` alone.

    ``batch`` neighbouring pictures share a plan. ``side`` is the longer side of a picture in pixels; the
    shorter follows its content. Some pictures are drawn small and enlarged, as the crops of small things are.
    """

    seed: int = 0
    batch: int = 256
    side: int = 64

    def __getitem__(self, index: int) -> tuple[PIL.Image.Image, str]:
        plan = plan_batch(np.random.default_rng([self.seed, 3, index // self.batch]))
        rng = np.random.default_rng([self.seed, 4, index])
        scene, caption = _compose(plan, rng)
        longest = self.side if rng.random() < 0.6 else int(rng.integers(self.side * 2 // 5, self.side))
        zoom = longest / max(scene.height, scene.width)
        size = (max(1, round(scene.height * zoom)), max(1, round(scene.width * zoom)))
        return PIL.Image.fromarray(render(scene, size).image), caption


def _compose(plan: Plan, rng: np.random.Generator) -> tuple[Scene, str]:
    if plan.kind == "scenes" and rng.random() < 0.7:
        scene = sample_scene(rng, size=tuple(rng.integers(120, 257, 2).tolist()))
        return scene, scene_caption(scene, rng)
    wording = np.random.default_rng(plan.synonyms)
    if not plan.mention and rng.random() < 0.15:
        ground = sample_ground(rng)
        noun = _agreed_noun(ground.grounds[0], wording)
        return ground, plan.wording.format(noun)
    scene = sample_closeup(rng, theme=plan.theme)
    main = max(scene.things, key=lambda thing: _prominence(scene, thing.x, thing.y, thing.radius))
    phrase = describe(main, plan.mention, _agreed_noun(main.shape, wording))
    return scene, plan.wording.format(with_article(phrase))


def _agreed_noun(name: str, wording: np.random.Generator) -> str:
    """Return the noun that the whole batch uses for a class: one draw in three is a synonym."""
    return any_noun(name, wording) if wording.random() < 0.34 else name


def _prominence(scene: Scene, x: float, y: float, radius: float) -> float:
    off_centre = np.hypot(x / scene.width - 0.5, y / scene.height - 0.5)
    return radius / max(scene.height, scene.width) - float(off_centre)
