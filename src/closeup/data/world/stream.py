"""Pictures with captions for pre-training: close-ups, grounds and scenes, in batches that make each word matter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import PIL.Image

from closeup.data.world.captions import WORDINGS, any_noun, describe, scene_caption, with_article
from closeup.data.world.lexicon import COLOURS, GROUNDS, MATERIALS, SHAPES
from closeup.data.world.render import render
from closeup.data.world.scene import Scene, Theme, Thing, sample_closeup, sample_ground, sample_scene

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


def plan_batch(rng: np.random.Generator, difficulty: float = 1.0) -> Plan:
    """Draw the plan of a batch.

    Half are noun-only close-ups (more while the pictures are easy), and half of these share colour, material
    and ground: a contrastive model names colours long before shapes, and learns shapes only where nothing
    else tells pictures apart.
    """
    shares = (0.95 - 0.45 * difficulty, 0.05 + 0.27 * difficulty, 0.18 * difficulty)
    kind = ("nouns", "attributes", "scenes")[int(rng.choice(3, p=shares))]
    fixed: dict[str, str] = {}
    if kind == "nouns" and rng.random() < 0.5:
        fixed = {
            "colour": _any(tuple(COLOURS), rng),
            "ground": _any(tuple(GROUNDS), rng),
            "material": _any(MATERIALS, rng),
        }
    mention = _MENTIONS[int(rng.integers(len(_MENTIONS)))] if kind == "attributes" else ()
    if kind == "attributes" and rng.random() < 0.4:
        fixed = {"shape": _any(tuple(SHAPES), rng)}
    return Plan(kind, Theme(fixed), mention, _any(WORDINGS, rng), int(rng.integers(2**31)))


def _any(values: tuple[str, ...], rng: np.random.Generator) -> str:
    return values[int(rng.integers(len(values)))]


@dataclass(frozen=True, slots=True)
class WorldStream:
    """Picture number ``i`` of an endless stream, with its caption; a function of the settings and ``i`` alone.

    ``batch`` neighbouring pictures share a plan. ``side`` is the longer side of a picture in pixels; the
    shorter follows its content. Some pictures are drawn small and enlarged, as the crops of small things are.

    Over the first ``ramp`` pictures the difficulty of close-ups rises from 0 to 1. Without it a ViT of this
    size stays at chance on shapes for tens of thousands of pictures, in supervised training too; black
    shapes on snow are learned in a few thousand, and from there each freedom is a small step.
    """

    seed: int = 0
    batch: int = 256
    side: int = 64
    ramp: int = 0

    def __getitem__(self, index: int) -> tuple[PIL.Image.Image, str]:
        number = index // self.batch
        difficulty = min(1.0, number * self.batch / self.ramp) if self.ramp else 1.0
        plan = plan_batch(np.random.default_rng([self.seed, 3, number]), difficulty)
        rng = np.random.default_rng([self.seed, 4, index])
        scene, caption = _compose(plan, rng, difficulty)
        sharp = rng.random() < 1 - 0.4 * difficulty
        longest = self.side if sharp else int(rng.integers(self.side * 2 // 5, self.side))
        return PIL.Image.fromarray(render(scene, scene.pixels(longest)).image), caption


def _compose(plan: Plan, rng: np.random.Generator, difficulty: float) -> tuple[Scene, str]:
    if plan.kind == "scenes" and rng.random() < 0.7:
        height, width = rng.integers(120, 257, 2).tolist()
        scene = sample_scene(rng, size=(height, width))
        return scene, scene_caption(scene, rng)
    agreed = np.random.default_rng(plan.synonyms)
    if not plan.mention and rng.random() < 0.15:
        ground = sample_ground(rng)
        return ground, plan.wording.format(_agreed_noun(ground.grounds[0], agreed))
    scene = sample_closeup(rng, theme=plan.theme, difficulty=difficulty)
    main = max(scene.things, key=lambda thing: _prominence(scene, thing))
    phrase = describe(main, plan.mention, _agreed_noun(main.shape, agreed))
    return scene, plan.wording.format(with_article(phrase))


def _agreed_noun(name: str, agreed: np.random.Generator) -> str:
    """Return the noun that a whole batch uses for a class: the batch draws one time in three from the synonyms."""
    return any_noun(name, agreed) if agreed.random() < 0.34 else name


def _prominence(scene: Scene, thing: Thing) -> float:
    off_centre = float(np.hypot(thing.x / scene.width - 0.5, thing.y / scene.height - 0.5))
    return thing.radius / max(scene.height, scene.width) - off_centre
