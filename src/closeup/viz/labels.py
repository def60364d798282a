"""Where labels go: one for each region beside its box, one for each class at its deepest place."""

from __future__ import annotations

import math
from collections.abc import Sequence

import PIL.Image
import torch
from jaxtyping import Int
from torch import Tensor

from closeup.viz.canvas import borders, repeated, shrunk
from closeup.viz.palette import Colour
from closeup.viz.text import Chip, Rectangle, font_size, line, place

COARSE = 256
"""Depths are measured on a map of at most this many pixels a side: near enough for a label, and fast."""


def label_regions(picture: PIL.Image.Image, regions: Sequence[tuple[str, Sequence[float], Colour]]) -> None:
    """Draw a label at a corner of each region's xyxy box, above it if there is room; empty texts get none."""
    size = font_size(*picture.size)
    taken: list[Rectangle] = []
    for text, (left, top, right, bottom), colour in regions:
        if not text.strip():
            continue
        chip = _chip(text, size, colour, picture)
        far, above, low = right - chip.width, top - chip.height, bottom - chip.height
        outside = [(left, above), (left, top), (far, above), (left, bottom), (far, top), (far, bottom)]
        beside = [(left, low), (far, low), (right, top), (left - chip.width, top)]
        taken.append(place((chip.width, chip.height), outside + beside, picture.size, taken))
        chip.draw(picture, *taken[-1][:2])


def label_classes(
    picture: PIL.Image.Image, label_map: Int[Tensor, "height width"], classes: Sequence[tuple[int, str, Colour]]
) -> None:
    """Draw the name of each class ``(index, name, colour)`` where it is thickest, if it is thick enough to carry it."""
    size = font_size(*picture.size)
    depth = inner_depth(label_map)
    taken: list[Rectangle] = []
    for index, name, colour in classes:
        inner = torch.where(label_map == index, depth, 0)
        if int(inner.max()) < 0.6 * size or not name.strip():
            continue
        chip = _chip(name, size, colour, picture)
        y, x = _middle(inner == inner.max())
        left, top = x - chip.width / 2, y - chip.height / 2
        shifts = (0, -chip.height, chip.height, -2 * chip.height, 2 * chip.height)
        wishes = [(left, top + shift) for shift in shifts]
        taken.append(place((chip.width, chip.height), wishes, picture.size, taken))
        chip.draw(picture, *taken[-1][:2])


def inner_depth(label_map: Int[Tensor, "height width"]) -> Int[Tensor, "height width"]:
    """Return how many pixels lie between each pixel and the end of its class or of the picture, roughly."""
    factor = math.ceil(max(label_map.shape) / COARSE)
    small = label_map[::factor, ::factor]
    inside = ~borders(small)
    inside[0], inside[-1], inside[:, 0], inside[:, -1] = False, False, False, False
    depth = inside.long()
    while bool(inside.any()):
        inside = shrunk(inside, 2)
        depth += 2 * inside
    height, width = label_map.shape
    return repeated(depth * factor, factor)[:height, :width]


def _middle(mask: Tensor) -> tuple[int, int]:
    """Return the pixel ``(y, x)`` of a mask that lies nearest to the mask's centre of mass."""
    spots = mask.nonzero()
    nearest = (spots - spots.float().mean(dim=0)).square().sum(dim=1).argmin()
    y, x = spots[nearest].tolist()
    return y, x


def _chip(text: str, size: int, colour: Colour, picture: PIL.Image.Image) -> Chip:
    pad = Chip(line("", size), colour).pad
    widest = min(max(0.6 * picture.width, 12 * size), picture.width)
    return Chip(line(text, size, room=widest - 2 * pad), colour)
