"""A picture against the words, cell by cell: the dense map of the whole picture or of windows over it."""

from __future__ import annotations

import math
from itertools import product
from typing import NamedTuple

import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor

from closeup.errors import InputError
from closeup.match import Bank, Matcher, score_map
from closeup.models.clip import Clip
from closeup.models.preprocess import Size
from closeup.models.routes import Route
from closeup.predict.matching import seen_by, wants_unit
from closeup.predict.pixels import Cells

Picture = Float[Tensor, "3 _ _"]


class ScoredCells(NamedTuple):
    """Raw scores of every word at every cell, and the height and width in pixels that the model saw."""

    scores: Cells
    canvas: Size


def score_cells(
    clip: Clip,
    picture: PIL.Image.Image,
    bank: Bank,
    *,
    route: str | Route = "value",
    size: int | Size | None = None,
    window: int | Size | None = None,
    stride: int | Size | None = None,
    batch: int = 8,
    matcher: Matcher | None = None,
) -> ScoredCells:
    """Return the raw score of every word (its best synonym) at every cell of the dense map of a picture.

    It is the cosine, or a matcher's, for which ``bank`` must hold what it takes (``words.as_bank``).

    The longest side is brought to ``size`` pixels (None: the native size) and each side rounded to whole
    patches, so that the map covers the picture exactly and there is no pad. With a ``window`` the model sees
    parts of that size, every ``stride`` pixels (None: half a window) and the last one moved in to the edge;
    all are rounded up to whole patches, so that the cells of overlapping windows coincide, and their scores
    are averaged. A window as large as the picture is the plain map.

    Raises:
        InputError: where a window or stride is below one pixel, or strides leave gaps between windows.
    """
    view = seen_by(matcher, clip, "dense")
    pixels, placement = clip.preprocess(picture, policy="fit", size=size)
    grid = placement.canvas[0] // clip.patch, placement.canvas[1] // clip.patch
    (high, wide), (down, across) = (grid, grid) if window is None else _in_cells(clip, window, stride)
    high, wide = min(high, grid[0]), min(wide, grid[1])
    corners = list(product(window_starts(grid[0], high, down), window_starts(grid[1], wide, across)))
    scores = torch.zeros(len(bank), *grid, device=clip.device)
    seen = torch.zeros(grid, device=clip.device)
    for first in range(0, len(corners), batch):
        some = corners[first : first + batch]
        with torch.no_grad():
            parts = torch.stack([_cut(pixels, top, left, high, wide, clip.patch) for top, left in some])
            maps = view.encode_dense(parts, route=route, normalize=wants_unit(matcher))
            found = score_map(maps, bank, matcher)
        for (top, left), part in zip(some, found, strict=True):
            scores[:, top : top + high, left : left + wide] += part
            seen[top : top + high, left : left + wide] += 1
    return ScoredCells(scores / seen, placement.canvas)


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Return where windows start along one side: every ``stride``, and a last one that ends at the end."""
    if window >= length:
        return [0]
    return [*range(0, length - window, stride), length - window]


def _cut(pixels: Picture, top: int, left: int, high: int, wide: int, patch: int) -> Picture:
    return pixels[:, top * patch : (top + high) * patch, left * patch : (left + wide) * patch]


def _in_cells(clip: Clip, window: int | Size, stride: int | Size | None) -> tuple[Size, Size]:
    sides = (window, window) if isinstance(window, int) else window
    steps = (stride, stride) if isinstance(stride, int) else stride
    if min(sides) < 1 or (steps is not None and min(steps) < 1):
        raise InputError(f"window {window} and stride {stride} must be pixels, one or more.")
    high, wide = (math.ceil(side / clip.patch) for side in sides)
    down, across = (math.ceil(step / clip.patch) for step in steps or (side / 2 for side in sides))
    if down > high or across > wide:
        raise InputError(f"The stride {stride} is larger than the window {window}: pixels between would never be seen.")
    return (high, wide), (down, across)
