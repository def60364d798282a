"""Curves through labelled points: what was gained against what was paid for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import PIL.Image
from PIL import ImageDraw

from closeup.errors import InputError
from closeup.viz.legend import INK, PAPER, with_legend
from closeup.viz.palette import Colour, name_colours
from closeup.viz.text import SMOOTH, Rectangle, font_size, line, place

Point: TypeAlias = tuple[float, float]

GRID: Colour = (228, 228, 232)
AXIS: Colour = (150, 150, 156)

_TICKS = 6


def draw_curves(
    curves: Mapping[str, Sequence[Point]],
    labels: Sequence[str],
    *,
    x: str,
    y: str,
    width: int = 720,
    height: int = 540,
) -> PIL.Image.Image:
    """Return one curve per name through its points ``(x, y)`` in order, with axes, grid and a legend below.

    ``labels[i]`` stands beside point ``i`` of every curve; where curves share its ``x``, only at the highest. ``x``
    and ``y`` name the axes. ``width`` and ``height`` are those of the plot in pixels; the legend comes below it. Zero
    is on the axes where it is near.

    Raises:
        InputError: there is no curve or no point, a curve has not one point per label, or a value is not finite.
    """
    _check(curves, labels)
    size = font_size(width, height)
    across = _Scale.around([point[0] for points in curves.values() for point in points])
    up = _Scale.around([point[1] for points in curves.values() for point in points])
    room = max(line(text, size).width for text in up.names())
    frame = (round(2.6 * size) + room, size, width - round(1.5 * size), height - round(3.8 * size))
    colours = dict(zip(curves, name_colours(list(curves)), strict=True))
    places = {name: [_at(frame, across, up, point) for point in points] for name, points in curves.items()}

    picture = PIL.Image.new("RGB", (width, height), PAPER)
    _draw_axes(picture, frame, across, up, size)
    _draw_lines(picture, [(places[name], colours[name]) for name in curves], size)
    _draw_labels(picture, frame, places, labels, size)
    _name_axes(picture, frame, x, y, size)
    return with_legend(picture, list(curves), colours=list(colours.values()))


@dataclass(frozen=True, slots=True)
class _Scale:
    """Values from ``low`` to ``high``, both ticks, a tick every ``step``."""

    low: float
    high: float
    step: float

    @classmethod
    def around(cls, values: Sequence[float]) -> _Scale:
        low, high = min(values), max(values)
        span = high - low
        low, high = (min(low, 0.0), max(high, 0.0)) if min(abs(low), abs(high)) <= span / 2 else (low, high)
        if low == high:
            high = low + max(abs(low), 1.0)
        span = high - low
        step = _round_step(span / _TICKS)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        return cls(first * step, max(last, first + 1) * step, step)

    def ticks(self) -> list[float]:
        count = round((self.high - self.low) / self.step)
        return [self.low + index * self.step for index in range(count + 1)]

    def names(self) -> list[str]:
        digits = max(0, -math.floor(math.log10(self.step) + 1e-9))
        return [f"{tick + 0.0 if abs(tick) > self.step / 2 else 0.0:.{digits}f}" for tick in self.ticks()]

    def share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)


def _round_step(step: float) -> float:
    """Return the least of 1, 2, 5 times a power of ten that is not below ``step``."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * digit for digit in (1, 2, 5, 10) if power * digit >= step * (1 - 1e-9))


def _at(frame: Rectangle, across: _Scale, up: _Scale, point: Point) -> Point:
    left, top, right, bottom = frame
    return left + across.share(point[0]) * (right - left), bottom - up.share(point[1]) * (bottom - top)


def _draw_axes(picture: PIL.Image.Image, frame: Rectangle, across: _Scale, up: _Scale, size: int) -> None:
    left, top, right, bottom = frame
    pen = ImageDraw.Draw(picture)
    thick = max(1, size // 12)
    for tick, name in zip(across.ticks(), across.names(), strict=True):
        x = left + across.share(tick) * (right - left)
        pen.line([(x, top), (x, bottom)], fill=_shade(tick, across), width=thick)
        text = line(name, size)
        text.draw(picture, x - text.width / 2, bottom + 0.5 * size, INK)
    for tick, name in zip(up.ticks(), up.names(), strict=True):
        y = bottom - up.share(tick) * (bottom - top)
        pen.line([(left, y), (right, y)], fill=_shade(tick, up), width=thick)
        text = line(name, size)
        text.draw(picture, left - 0.5 * size - text.width, y - text.height / 2, INK)


def _shade(tick: float, scale: _Scale) -> Colour:
    """Return the colour of a grid line: that of zero stands out."""
    return AXIS if abs(tick) < scale.step / 2 else GRID


def _draw_lines(picture: PIL.Image.Image, curves: Sequence[tuple[Sequence[Point], Colour]], size: int) -> None:
    """Draw every curve's line and points, many times larger and shrunk, so that they are smooth."""
    large = (picture.width * SMOOTH, picture.height * SMOOTH)
    thick, dot = round(0.16 * size * SMOOTH), 0.34 * size * SMOOTH
    for points, colour in curves:
        mask = PIL.Image.new("L", large, 0)
        pen = ImageDraw.Draw(mask)
        centres = [(x * SMOOTH, y * SMOOTH) for x, y in points]
        pen.line(centres, fill=255, width=thick, joint="curve")
        for x, y in centres:
            pen.ellipse((x - dot, y - dot, x + dot, y + dot), fill=255)
        picture.paste(colour, (0, 0), mask.resize(picture.size, PIL.Image.Resampling.BOX))


def _draw_labels(
    picture: PIL.Image.Image, frame: Rectangle, places: Mapping[str, Sequence[Point]], labels: Sequence[str], size: int
) -> None:
    small = max(9, round(0.85 * size))
    gap = 0.55 * size
    dots = [(x, y) for points in places.values() for x, y in points]
    taken = [(0, 0, frame[0], picture.height), (0, frame[3], *picture.size)]  # where the axes have their numbers
    taken += [(round(x - gap), round(y - gap), round(x + gap), round(y + gap)) for x, y in dots]
    for label, points in zip(labels, zip(*places.values(), strict=True), strict=True):
        highest = {round(x): y for x, y in sorted(points, key=lambda point: -point[1])}
        for x, y in highest.items():
            text = line(label, small)
            beside, above = text.width + gap, text.height + gap
            wishes = [(x + dx, y + dy) for dy in (-above, gap, -text.height / 2) for dx in (-beside, gap)]
            spot = place((text.width, text.height), wishes, picture.size, taken)
            taken.append(spot)
            text.draw(picture, spot[0], spot[1], INK)


def _name_axes(picture: PIL.Image.Image, frame: Rectangle, x: str, y: str, size: int) -> None:
    left, top, right, bottom = frame
    below = line(x, size, room=right - left)
    below.draw(picture, (left + right - below.width) / 2, picture.height - 1.5 * size, INK)
    beside = line(y, size, room=bottom - top)
    strip = PIL.Image.new("RGB", (max(beside.width, 1), 2 * size), PAPER)
    beside.draw(strip, 0, size / 2, INK)
    turned = strip.transpose(PIL.Image.Transpose.ROTATE_90)
    picture.paste(turned, (0, round((top + bottom - turned.height) / 2)))


def _check(curves: Mapping[str, Sequence[Point]], labels: Sequence[str]) -> None:
    if not curves or not labels:
        raise InputError("there is nothing to draw: give at least one curve with one point.")
    for name, points in curves.items():
        if len(points) != len(labels):
            raise InputError(f"each point needs one label, but {name!r} has {len(points)} and there are {len(labels)}.")
        if not all(map(math.isfinite, (value for point in points for value in point))):
            raise InputError(f"the curve {name!r} has a value that is not finite.")
