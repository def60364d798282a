"""Grids of equal cells over an image: CLIPSelf's regions that need no annotation."""

from __future__ import annotations

import torch

from closeup._types import Boxes
from closeup.errors import InputError


def grid_boxes(rows: int, cols: int, height: float, width: float) -> Boxes:
    """Return the ``rows * cols`` equal cells that cover an image, row by row from the top left.

    Args:
        rows: Cells along y.
        cols: Cells along x.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Raises:
        InputError: If a number or a side is not positive.
    """
    if min(rows, cols) < 1 or min(height, width) <= 0:
        raise InputError(
            f"a grid of {rows} x {cols} cells on an image of {height} x {width} pixels: all four must be positive."
        )
    top, left = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    cells = torch.stack([left, top, left + 1, top + 1], dim=-1).reshape(-1, 4).double()
    return (cells * cells.new_tensor([width / cols, height / rows] * 2)).float()


def candidate_grids(max_split: int = 6) -> list[tuple[int, int]]:
    """Return the ``(rows, cols)`` from which CLIPSelf draws one for every image, each as likely as the others.

    Both are at most ``max_split`` and neither is more than twice the other: 24 grids for 6.

    Raises:
        InputError: If ``max_split`` is not positive.

    Source: CLIPSelf (Wu et al., 2024; wusize/CLIPSelf, training/data.py, GridDistillDataset).
    """
    if max_split < 1:
        raise InputError(f"max_split is {max_split}: give 1 or more.")
    splits = range(1, max_split + 1)
    return [(rows, cols) for rows in splits for cols in splits if rows <= 2 * cols and cols <= 2 * rows]
