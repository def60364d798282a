"""Rotary position embedding (RoPE) on any grid of patches, square or not."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

Bands = Float[Tensor, " bands"]


def axial_rotation(
    bands: Bands,
    grid: tuple[int, int],
    *,
    reference: tuple[int, int] | None = None,
    offset: float = 0.0,
    columns_first: bool = False,
) -> Float[Tensor, "patches channels"]:
    """Return the sine and cosine tables of every patch, ``[sin | cos]``, in timm's interleaved layout.

    Half of a head's channels turn with the row, half with the column; each pair of neighbouring
    channels turns by ``position * band``. Along an axis of ``g`` patches the positions are
    ``(arange(g) + offset) / g * reference``: whatever the grid, they span what the model saw in
    training (EVA-02 in CLIPSelf's ``eva_clip/rope.py``, there for square grids only). Without a
    reference they are ``arange(g) + offset``. ``columns_first`` swaps the two halves (Perception Encoder).
    """
    rows = _positions(grid[0], None if reference is None else reference[0], offset, bands)
    cols = _positions(grid[1], None if reference is None else reference[1], offset, bands)
    by_row = (rows[:, None] * bands)[:, None].expand(*grid, -1)
    by_col = (cols[:, None] * bands)[None].expand(*grid, -1)
    halves = (by_col, by_row) if columns_first else (by_row, by_col)
    angles = torch.cat(halves, dim=-1).flatten(0, 1).repeat_interleave(2, dim=-1)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _positions(count: int, reference: int | None, offset: float, like: Bands) -> Float[Tensor, " count"]:
    positions = torch.arange(count, device=like.device, dtype=like.dtype) + offset
    return positions if reference is None else positions / count * reference
