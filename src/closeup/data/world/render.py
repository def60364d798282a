"""Draws a scene: the picture and its exact truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import PIL.Image
import PIL.ImageDraw
from jaxtyping import Bool, Float, Int, UInt8

from closeup.data.world.lexicon import COLOURS, NAMES
from closeup.data.world.patterns import pattern_field
from closeup.data.world.scene import Scene, Thing
from closeup.data.world.shapes import outline
from closeup.data.world.textures import TILE, ground_tile, material_tile

_ALPHA = {"opaque": 1.0, "translucent": 0.6, "transparent": 0.32}
_OVERSAMPLING = 3

Colour = Float[np.ndarray, "rows cols 3"]
Plane = Float[np.ndarray, "rows cols"]


@dataclass(frozen=True, slots=True, eq=False)
class Rendering:
    """A drawn scene.

    ``masks`` holds the visible part of every thing of the scene, in its order (a thing may be wholly
    hidden); ``grounds`` is the index into ``NAMES`` of the ground at every pixel, things not counted.
    """

    image: UInt8[np.ndarray, "rows cols 3"]
    masks: Bool[np.ndarray, "things rows cols"]
    grounds: Int[np.ndarray, "rows cols"]


def render(scene: Scene, size: tuple[int, int]) -> Rendering:
    """Draw a scene at ``size`` (height, width) pixels."""
    rng = np.random.default_rng(scene.seed)
    canvas, grounds = _draw_grounds(scene, size, rng)
    coverage = [_draw_thing(canvas, scene, thing, rng) for thing in scene.things]
    return Rendering(_expose(canvas, rng), _visible(coverage, size), grounds)


def _visible(coverage: list[Plane], size: tuple[int, int]) -> Bool[np.ndarray, "things rows cols"]:
    masks = np.zeros((len(coverage), *size), dtype=bool)
    hidden = np.zeros(size, dtype=bool)
    for index in reversed(range(len(coverage))):
        masks[index] = (coverage[index] > 0.5) & ~hidden
        hidden |= masks[index]
    return masks


def _draw_grounds(
    scene: Scene, size: tuple[int, int], rng: np.random.Generator
) -> tuple[Colour, Int[np.ndarray, "rows cols"]]:
    rows, cols = size
    y = (np.arange(rows) + 0.5)[:, None] * (scene.height / rows)
    x = (np.arange(cols) + 0.5)[None, :] / cols
    level = np.zeros(size, dtype=np.int64)
    for left, right, wave in scene.borders:
        level += y > left + (right - left) * x + wave * np.sin(9 * x + 7 * left)
    canvas = np.empty((rows, cols, 3), dtype=np.float32)
    for index, name in enumerate(scene.grounds):
        x0, y0 = rng.uniform(0, TILE, 2)
        cut = ground_tile(name).resize(
            (cols, rows), PIL.Image.Resampling.BILINEAR, box=(x0, y0, x0 + scene.width, y0 + scene.height)
        )
        pixels = np.asarray(cut, dtype=np.float32) * rng.uniform(0.85, 1.12)
        canvas = np.where((level == index)[..., None], pixels, canvas) if index else pixels
    labels = np.array([NAMES.index(name) for name in scene.grounds])
    return canvas, labels[np.minimum(level, len(labels) - 1)]


def _draw_thing(canvas: Colour, scene: Scene, thing: Thing, rng: np.random.Generator) -> Plane:
    """Paint a thing over the canvas and return how much of every pixel it covers."""
    rows, cols = canvas.shape[:2]
    coverage = np.zeros((rows, cols), dtype=np.float32)
    zoom = np.array([cols / scene.width, rows / scene.height])
    reach = 1.45 * thing.radius * zoom
    centre = np.array([thing.x, thing.y]) * zoom
    x0, y0 = np.maximum(np.floor(centre - reach), 0).astype(int).tolist()
    x1, y1 = np.minimum(np.ceil(centre + reach), (cols, rows)).astype(int).tolist()
    if x0 >= x1 or y0 >= y1:
        return coverage
    window = coverage[y0:y1, x0:x1]
    window[:] = _silhouette(thing, (centre - (x0, y0)), zoom, window.shape)
    across, down = _local(thing, zoom, centre, (x0, y0, x1, y1))
    face, alpha = _surface(thing, across, down, rng)
    bevel = _bevel(window)
    face = face * (1 + 0.3 * bevel[..., None])
    alpha = window * np.maximum(alpha, np.minimum(np.abs(bevel) * 2, 0.8))
    under = canvas[y0:y1, x0:x1]
    under += alpha[..., None] * (np.clip(face, 0, 255) - under)
    return coverage


def _silhouette(thing: Thing, centre: np.ndarray, zoom: np.ndarray, shape: tuple[int, int]) -> Plane:
    turn = np.array([[np.cos(thing.angle), np.sin(thing.angle)], [-np.sin(thing.angle), np.cos(thing.angle)]])
    half = thing.radius * np.array([min(thing.stretch, 1), min(1 / thing.stretch, 1)])
    picture = PIL.Image.new("L", (shape[1] * _OVERSAMPLING, shape[0] * _OVERSAMPLING))
    draw = PIL.ImageDraw.Draw(picture)
    for polygon, filled in outline(thing.shape):
        corners = ((polygon * half) @ turn * zoom + centre) * _OVERSAMPLING
        draw.polygon(corners.ravel().tolist(), fill=255 if filled else 0)
    return np.asarray(picture.reduce(_OVERSAMPLING), dtype=np.float32) / 255


def _local(thing: Thing, zoom: np.ndarray, centre: np.ndarray, box: tuple[int, int, int, int]) -> tuple[Plane, Plane]:
    """Return the coordinates of every pixel in the thing's own frame, in units from its centre."""
    x0, y0, x1, y1 = box
    x = (np.arange(x0, x1, dtype=np.float32) + 0.5 - np.float32(centre[0])) / np.float32(zoom[0])
    y = (np.arange(y0, y1, dtype=np.float32) + 0.5 - np.float32(centre[1])) / np.float32(zoom[1])
    c, s = np.float32(np.cos(thing.angle)), np.float32(np.sin(thing.angle))
    return c * x[None, :] + s * y[:, None], -s * x[None, :] + c * y[:, None]


def _surface(thing: Thing, across: Plane, down: Plane, rng: np.random.Generator) -> tuple[Colour, Plane]:
    colour = np.array(COLOURS[thing.colour], dtype=np.float32)
    u, v = across / np.float32(thing.radius), down / np.float32(thing.radius)
    second = colour * 0.3 if colour.mean() > 105 else colour + (255 - colour) * 0.6
    inked = pattern_field(thing.pattern, u, v)
    holes = thing.pattern == "perforated"
    face = colour if holes else colour + inked[..., None] * (second - colour)
    alpha = np.full(across.shape, _ALPHA[thing.transparency], dtype=np.float32)
    if holes:
        alpha *= 1 - inked
    return _shade(np.broadcast_to(face, (*across.shape, 3)), thing.material, u, v, across, rng), alpha


def _shade(face: Colour, material: str, u: Plane, v: Plane, across: Plane, rng: np.random.Generator) -> Colour:
    """Light a surface as its material is lit: a fine texture, and a large soft or banded reflection."""
    x0, y0 = rng.uniform(0, TILE, 2)
    rows, cols = across.shape
    extent = max(float(np.ptp(across)), 1.0)
    box = (x0, y0, x0 + min(extent, TILE), y0 + min(extent * rows / cols, TILE))
    grain = np.asarray(material_tile(material).resize((cols, rows), PIL.Image.Resampling.BILINEAR, box=box))
    lit: Colour = face * (1 + grain[..., None])
    if material == "plastic":
        gloss = np.exp(-6 * ((u + 0.35) ** 2 + (v + 0.4) ** 2))
        lit = lit * (1 - 0.12 * v[..., None]) + 150 * gloss[..., None]
    elif material == "metal":
        band = np.sin(4.2 * (u + v) + 1) ** 3
        lit = lit + 0.25 * (lit.mean(axis=-1, keepdims=True) - lit) + 75 * band[..., None]
    elif material == "paper":
        lit = lit * (1 + np.where(u + 0.6 * v > 0, 0.06, -0.1)[..., None])
    else:
        lit = lit * (1 - 0.1 * v[..., None])
    return lit


def _bevel(window: Plane) -> Plane:
    """Return a positive rim where an edge faces the light at the upper left and a negative one where it faces away."""
    padded = np.pad(window, 1)
    result: Plane = (window - padded[:-2, :-2]).clip(0) - (window - padded[2:, 2:]).clip(0)
    return result


def _expose(canvas: Colour, rng: np.random.Generator) -> UInt8[np.ndarray, "rows cols 3"]:
    """Apply the light of the hour and the noise of a camera."""
    gain = rng.uniform(0.9, 1.08) * rng.uniform(0.97, 1.03, 3)
    noise = rng.standard_normal(canvas.shape, dtype=np.float32) * rng.uniform(0, 5)
    result: UInt8[np.ndarray, "rows cols 3"] = np.clip(canvas * gain.astype(np.float32) + noise, 0, 255).astype(
        np.uint8
    )
    return result
