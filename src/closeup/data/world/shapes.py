"""The outlines of the world's things: polygons in a unit square, x right and y down, from -1 to 1."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import cos, pi, sin
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

Polygon: TypeAlias = Float[np.ndarray, "_ 2"]
Outline: TypeAlias = tuple[tuple[Polygon, bool], ...]
"""Polygons painted in order; False cuts a hole."""


def _points(*pairs: tuple[float, float]) -> Polygon:
    return np.array(pairs, dtype=np.float64)


def _ellipse(cx: float = 0, cy: float = 0, rx: float = 1, ry: float | None = None) -> Polygon:
    angle = np.linspace(0, 2 * pi, 48, endpoint=False)
    return np.stack([cx + rx * np.cos(angle), cy + (rx if ry is None else ry) * np.sin(angle)], axis=1)


def _arc(cx: float, cy: float, radius: float, start: float, stop: float, count: int = 24) -> Polygon:
    angle = np.linspace(start, stop, count)
    return np.stack([cx + radius * np.cos(angle), cy + radius * np.sin(angle)], axis=1)


def _rectangle(x0: float, y0: float, x1: float, y1: float) -> Polygon:
    return _points((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def _spikes(count: int, inner: float, turn: float = -pi / 2) -> Polygon:
    radii = [1.0 if i % 2 == 0 else inner for i in range(2 * count)]
    return _points(*((r * cos(turn + i * pi / count), r * sin(turn + i * pi / count)) for i, r in enumerate(radii)))


def _solid(*polygons: Polygon) -> Outline:
    return tuple((polygon, True) for polygon in polygons)


def _arrow() -> Outline:
    return _solid(_points((1, 0), (0.1, -0.8), (0.1, -0.3), (-1, -0.3), (-1, 0.3), (0.1, 0.3), (0.1, 0.8)))


def _bell() -> Outline:
    side = np.linspace(0, 1, 16)
    right = np.stack([0.32 + 0.5 * side**2.5, -0.55 + 1.1 * side], axis=1)
    left = right[::-1] * [-1, 1]
    dome = _arc(0, -0.55, 0.32, pi, 2 * pi)
    body = np.concatenate([dome, right, left])
    return _solid(body, _ellipse(0, -0.9, 0.1), _rectangle(-0.95, 0.5, 0.95, 0.68), _ellipse(0, 0.78, 0.2))


def _bolt() -> Outline:
    return _solid(_points((0.2, -1), (-0.6, 0.15), (-0.08, 0.15), (-0.25, 1), (0.6, -0.25), (0.08, -0.25), (0.55, -1)))


def _bottle() -> Outline:
    shoulder = _points((-0.2, -0.5), (0.2, -0.5), (0.45, -0.05), (0.45, 1), (-0.45, 1), (-0.45, -0.05))
    return _solid(_rectangle(-0.2, -0.86, 0.2, -0.45), shoulder, _rectangle(-0.27, -1, 0.27, -0.82))


def _cloud() -> Outline:
    puffs = ((-0.55, 0.15, 0.42), (-0.15, -0.2, 0.5), (0.35, -0.05, 0.45), (0.65, 0.22, 0.34))
    return _solid(*(_ellipse(*puff) for puff in puffs), _rectangle(-0.55, 0.1, 0.65, 0.57))


def _crescent() -> Outline:
    return ((_ellipse(0.1, 0, 0.98), True), (_ellipse(0.52, 0, 0.78), False))


def _cross() -> Outline:
    return _solid(_rectangle(-0.32, -1, 0.32, 1), _rectangle(-1, -0.32, 1, 0.32))


def _cup() -> Outline:
    body = _points((-0.85, -0.75), (0.45, -0.75), (0.32, 0.8), (-0.72, 0.8))
    return ((_ellipse(0.5, -0.08, 0.48), True), (_ellipse(0.5, -0.08, 0.27), False), (body, True))


def _drop() -> Outline:
    return _solid(np.concatenate([_points((0, -1)), _arc(0, 0.36, 0.62, -0.42, pi + 0.42)]))


def _fish() -> Outline:
    tail = _points((-0.3, 0), (-1, -0.6), (-0.82, 0), (-1, 0.6))
    fin = _points((-0.1, -0.4), (0.35, -0.75), (0.45, -0.3))
    return ((_ellipse(0.22, 0, 0.76, 0.48), True), (tail, True), (fin, True), (_ellipse(0.62, -0.12, 0.09), False))


def _flower() -> Outline:
    petals = [_ellipse(0.6 * cos(i * pi / 3), 0.6 * sin(i * pi / 3), 0.36) for i in range(6)]
    return (*_solid(*petals, _ellipse(0, 0, 0.45)), (_ellipse(0, 0, 0.2), False))


def _gear() -> Outline:
    teeth: list[tuple[float, float]] = []
    for i in range(8):
        for offset, radius in ((-0.2, 0.74), (-0.13, 1.0), (0.13, 1.0), (0.2, 0.74)):
            angle = i * pi / 4 + offset
            teeth.append((radius * cos(angle), radius * sin(angle)))
    return ((_points(*teeth), True), (_ellipse(0, 0, 0.34), False))


def _heart() -> Outline:
    t = np.linspace(0, 2 * pi, 64, endpoint=False)
    x = np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
    return _solid(np.stack([x, y], axis=1))


def _house() -> Outline:
    roof = _points((-1, -0.1), (0, -1), (1, -0.1))
    door = _rectangle(-0.18, 0.35, 0.18, 0.95)
    return ((roof, True), (_rectangle(-0.72, -0.15, 0.72, 0.95), True), (door, False))


def _key() -> Outline:
    bow = ((_ellipse(-0.58, 0, 0.42), True), (_ellipse(-0.58, 0, 0.2), False))
    blade = (_rectangle(-0.2, -0.12, 1, 0.12), _rectangle(0.5, 0.1, 0.66, 0.42), _rectangle(0.82, 0.1, 0.98, 0.5))
    return (*bow, *_solid(*blade))


def _leaf() -> Outline:
    t = np.linspace(0, 1, 24)
    upper = np.stack([-0.75 + 1.75 * t, -0.62 * np.sin(pi * t) ** 0.9], axis=1)
    lower = upper[::-1] * [1, -1]
    stem = _points((-1, 0.06), (-0.7, 0.06), (-0.7, -0.06), (-1, -0.06))
    vein = _points((-0.6, 0.03), (0.7, 0.02), (0.7, -0.02), (-0.6, -0.03))
    return ((np.concatenate([upper, lower]), True), (stem, True), (vein, False))


def _mushroom() -> Outline:
    cap = np.concatenate([_arc(0, 0, 0.95, pi, 2 * pi), _points((0.9, 0.12), (-0.9, 0.12))])
    stalk = _points((-0.26, 0.1), (0.26, 0.1), (0.36, 0.9), (-0.36, 0.9))
    return _solid(cap, stalk)


def _ring() -> Outline:
    return ((_ellipse(), True), (_ellipse(rx=0.6), False))


def _tree() -> Outline:
    layers = [
        _points((0, top), (half, base), (-half, base))
        for top, base, half in ((-1, -0.3, 0.5), (-0.6, 0.2, 0.68), (-0.2, 0.7, 0.86))
    ]
    return _solid(*layers, _rectangle(-0.14, 0.65, 0.14, 1))


def _triangle() -> Outline:
    return _solid(_points((0, -0.9), (0.98, 0.8), (-0.98, 0.8)))


def _umbrella() -> Outline:
    scallops = [(_ellipse(x, 0.04, 0.25, 0.17), False) for x in (-0.75, -0.25, 0.25, 0.75)]
    canopy = np.concatenate([_arc(0, 0, 1, pi, 2 * pi), _points((1, 0.02), (-1, 0.02))])
    hook = ((_ellipse(0.19, 0.72, 0.26), True), (_ellipse(0.19, 0.72, 0.12), False))
    gap = (_rectangle(-0.1, 0.4, 0.5, 0.72), False)
    return ((canopy, True), *scallops, *hook, gap, (_rectangle(-0.07, -0.2, 0.07, 0.75), True))


_MAKERS: MappingProxyType[str, Callable[[], Outline]] = MappingProxyType(
    {
        "arrow": _arrow,
        "bell": _bell,
        "bolt": _bolt,
        "bottle": _bottle,
        "circle": lambda: _solid(_ellipse()),
        "cloud": _cloud,
        "crescent": _crescent,
        "cross": _cross,
        "cup": _cup,
        "drop": _drop,
        "fish": _fish,
        "flower": _flower,
        "gear": _gear,
        "heart": _heart,
        "house": _house,
        "key": _key,
        "leaf": _leaf,
        "mushroom": _mushroom,
        "ring": _ring,
        "square": lambda: _solid(_rectangle(-0.85, -0.85, 0.85, 0.85)),
        "star": lambda: _solid(_spikes(5, 0.42)),
        "tree": _tree,
        "triangle": _triangle,
        "umbrella": _umbrella,
    }
)


@cache
def outline(shape: str) -> Outline:
    """Return the polygons of a shape of the lexicon, in its own unit square."""
    return _MAKERS[shape]()
