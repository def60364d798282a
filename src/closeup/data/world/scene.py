"""What a picture of the world shows, before it is drawn: grounds, things, their attributes and places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from closeup.data.world.lexicon import COLOURS, GROUNDS, MATERIALS, PATTERNS, SHAPES, TRANSPARENCIES

FAMILIES = ("colour", "pattern", "material", "transparency")


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing: what it is, how it looks, and where it lies, in units of the scene.

    ``x, y`` is the centre, ``radius`` half of the larger side, ``angle`` the turn in radians, clockwise
    on the picture, ``stretch`` the ratio of its width to its height before the turn.
    """

    shape: str
    colour: str
    pattern: str
    material: str
    transparency: str
    x: float
    y: float
    radius: float
    angle: float
    stretch: float

    @property
    def attributes(self) -> dict[str, str]:
        """The four attribute families by name."""
        return {family: getattr(self, family) for family in FAMILIES}


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture: its extent in units, its grounds from top to bottom, its things from back to front.

    A unit is one pixel when drawn at density 1. ``borders`` holds, for every pair of neighbouring
    grounds, the height at the left and at the right edge and the wave of the line between them.
    """

    height: float
    width: float
    grounds: tuple[str, ...]
    borders: tuple[tuple[float, float, float], ...]
    things: tuple[Thing, ...]
    seed: int

    def pixels(self, longest: int) -> tuple[int, int]:
        """Return the height and width in pixels of the scene drawn with a longer side of ``longest``."""
        zoom = longest / max(self.height, self.width)
        return max(1, round(self.height * zoom)), max(1, round(self.width * zoom))


@dataclass(frozen=True, slots=True)
class Theme:
    """Attribute values that a group of pictures has in common, so that only what is left can tell them apart."""

    fixed: Mapping[str, str] = field(default_factory=dict)

    def pick(self, family: str, values: Sequence[str], rng: np.random.Generator) -> str:
        """Return the fixed value of a family, or draw one."""
        return self.fixed.get(family) or values[int(rng.integers(len(values)))]


_PATTERN_WEIGHTS = np.array([0.4] + [0.6 / (len(PATTERNS) - 1)] * (len(PATTERNS) - 1))
_TRANSPARENCY_WEIGHTS = np.array([0.74, 0.15, 0.11])


def sample_thing(
    rng: np.random.Generator, *, x: float, y: float, radius: float, theme: Theme, freedom: float = 1.0
) -> Thing:
    """Draw the class, the attributes and the pose of a thing at a given place.

    ``freedom`` from 0 to 1 is how far it may turn and stretch.
    """
    pattern = theme.fixed.get("pattern") or PATTERNS[int(rng.choice(len(PATTERNS), p=_PATTERN_WEIGHTS))]
    transparency = theme.fixed.get("transparency") or TRANSPARENCIES[int(rng.choice(3, p=_TRANSPARENCY_WEIGHTS))]
    return Thing(
        shape=theme.pick("shape", tuple(SHAPES), rng),
        colour=theme.pick("colour", tuple(COLOURS), rng),
        pattern=pattern,
        material=theme.pick("material", MATERIALS, rng),
        transparency=transparency,
        x=x,
        y=y,
        radius=radius,
        angle=freedom * float(rng.uniform(-0.7, 0.7)),
        stretch=float(rng.uniform(0.8, 1.25)) ** freedom,
    )


def sample_grounds(
    rng: np.random.Generator, height: float, theme: Theme, most: int
) -> tuple[tuple[str, ...], tuple[tuple[float, float, float], ...]]:
    """Draw one to ``most`` different grounds and the borders between them."""
    count = int(rng.integers(1, most + 1))
    order = rng.permutation(tuple(GROUNDS))[:count].tolist()
    if "ground" in theme.fixed:
        order[0] = theme.fixed["ground"]
        order = list(dict.fromkeys(order))
    cuts = height * (np.arange(1, len(order)) + rng.uniform(-0.25, 0.25, len(order) - 1)) / len(order)
    borders = tuple(
        (float(cut + rng.normal(0, 0.05) * height), float(cut + rng.normal(0, 0.05) * height), float(rng.uniform(0, 6)))
        for cut in cuts
    )
    return tuple(order), borders


def sample_scene(rng: np.random.Generator, *, size: tuple[int, int] = (256, 256), theme: Theme | None = None) -> Scene:
    """Draw a scene of one to three grounds and two to seven things, ``size`` units high and wide."""
    theme = theme or Theme()
    height, width = size
    side = min(size)
    grounds, borders = sample_grounds(rng, height, theme, most=3)
    things: list[Thing] = []
    for _ in range(int(rng.integers(2, 8))):
        radius = side * float(np.exp(rng.uniform(np.log(0.07), np.log(0.22))))
        for _attempt in range(8):
            x = float(rng.uniform(0.7 * radius, width - 0.7 * radius))
            y = float(rng.uniform(0.7 * radius, height - 0.7 * radius))
            if all(np.hypot(x - other.x, y - other.y) > 0.65 * (radius + other.radius) for other in things):
                things.append(sample_thing(rng, x=x, y=y, radius=radius, theme=theme))
                break
    return Scene(height, width, grounds, borders, tuple(things), int(rng.integers(2**31)))


PLAINEST: Mapping[str, str] = MappingProxyType(
    {"colour": "black", "pattern": "plain", "material": "leather", "transparency": "opaque", "ground": "snow"}
)
"""The look in which shapes are easiest to tell apart."""


def sample_closeup(rng: np.random.Generator, *, theme: Theme | None = None, difficulty: float = 1.0) -> Scene:
    """Draw a picture of one thing that fills most of the frame; a neighbour may look in from the side.

    Its extent in units is that of a scene's crop, so that grounds and things keep their scale. At
    ``difficulty`` 0 every thing is black on snow, upright, centred and alone; at 1 everything varies;
    between, each property is free with that probability or to that degree.
    """
    fixed = (theme or Theme()).fixed
    theme = Theme({family: value for family, value in PLAINEST.items() if rng.random() >= difficulty} | dict(fixed))
    radius = 256 * float(np.exp(rng.uniform(np.log(0.07), np.log(0.22))))
    room = 1.15 + difficulty * (float(rng.uniform(0.95, 1.9)) - 1.15)
    aspect = float(np.exp(difficulty * rng.uniform(-0.35, 0.35)))
    height, width = 2 * radius * room / aspect**0.5, 2 * radius * room * aspect**0.5
    grounds, borders = sample_grounds(rng, height, theme, most=2 if rng.random() < difficulty else 1)
    free = np.maximum(np.array([width, height]) / 2 - 0.85 * radius, 0) * rng.uniform(-1, 1, 2) * difficulty
    x, y = width / 2 + float(free[0]), height / 2 + float(free[1])
    things = [sample_thing(rng, x=x, y=y, radius=radius, theme=theme, freedom=difficulty)]
    if rng.random() < 0.25 * difficulty:
        things.insert(int(rng.integers(2)), _neighbour(rng, x, y, radius))
    return Scene(height, width, grounds, borders, tuple(things), int(rng.integers(2**31)))


def _neighbour(rng: np.random.Generator, x: float, y: float, radius: float) -> Thing:
    angle = float(rng.uniform(0, 2 * np.pi))
    other = radius * float(rng.uniform(0.5, 1.2))
    away = 0.8 * (radius + other)
    return sample_thing(rng, x=x + away * np.cos(angle), y=y + away * np.sin(angle), radius=other, theme=Theme())


def sample_ground(rng: np.random.Generator, *, theme: Theme | None = None) -> Scene:
    """Draw a picture of one ground and nothing on it."""
    side = float(rng.uniform(24, 160))
    grounds, _ = sample_grounds(rng, side, theme or Theme(), most=1)
    return Scene(side, side * float(rng.uniform(0.7, 1.4)), grounds, (), (), int(rng.integers(2**31)))
