"""Learned position embeddings at another grid: resized, or cut from the corner."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from closeup.errors import InputError

Positions: TypeAlias = Float[Tensor, "positions width"]
"""Prefix rows first (the class token, where there is one), then one row per cell of a grid, row by row."""

Placed: TypeAlias = Float[Tensor, "placed width"]
"""The same at another grid."""


def resize_position_embedding(
    embedding: Positions,
    size: tuple[int, int],
    *,
    prefix: int = 1,
    mode: Literal["bicubic", "bilinear"] = "bicubic",
    native: tuple[int, int] | None = None,
) -> Placed:
    """Resize the grid of a position embedding to ``size`` = ``(rows, cols)``; prefix rows are kept as they are.

    ``align_corners=False`` and no antialias, as every official code of the five methods does it. At its
    own grid the embedding itself is returned. ``native`` is that grid; square where it is not given.
    Raise InputError where the rows do not form that grid.
    """
    rows, cols = native_grid(embedding, prefix, native)
    if (rows, cols) == tuple(size):
        return embedding
    planes = embedding[prefix:].float().T.reshape(1, -1, rows, cols)
    planes = F.interpolate(planes, size=tuple(size), mode=mode, align_corners=False)
    return torch.cat([embedding[:prefix], planes[0].flatten(1).T.to(embedding.dtype)])


def crop_position_embedding(
    embedding: Positions,
    size: tuple[int, int],
    *,
    prefix: int = 1,
    native: tuple[int, int] | None = None,
) -> Placed:
    """Keep the top-left ``size`` = ``(rows, cols)`` of the grid; prefix rows are kept as they are.

    Raise InputError where the grid is smaller than ``size``, or the rows do not form the grid ``native``
    (square where it is not given).
    """
    native = native_grid(embedding, prefix, native)
    if size[0] > native[0] or size[1] > native[1]:
        raise InputError(
            f"Cannot cut {size[0]} x {size[1]} positions from a grid of {native[0]} x {native[1]}. "
            "Use a smaller image, or resize the embedding to a larger grid first."
        )
    grid = embedding[prefix:].reshape(*native, -1)[: size[0], : size[1]]
    return torch.cat([embedding[:prefix], grid.flatten(0, 1)])


def native_grid(embedding: Positions, prefix: int = 1, native: tuple[int, int] | None = None) -> tuple[int, int]:
    """Return the ``(rows, cols)`` of the grid behind ``prefix`` rows; raise InputError if the rows do not form it."""
    cells = embedding.shape[0] - prefix
    side = math.isqrt(max(cells, 0))
    rows, cols = native or (side, side)
    if cells < 1 or rows * cols != cells:
        expected = f"a {rows} x {cols} grid" if native else "a square grid"
        raise InputError(
            f"A position embedding of {embedding.shape[0]} rows is not {expected} behind {prefix} prefix rows. "
            "Give its grid as native=(rows, cols) and its number of prefix rows as prefix."
        )
    return rows, cols
