"""Mask pooling: the mean of the dense map over a mask, and how a mask of pixels becomes weights of cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from closeup._types import DenseMap, Masks
from closeup.errors import InputError, suggest
from closeup.geometry import Placement, masks_to_boxes
from closeup.regions.pool import weighted_sums

CellMasks = Float[Tensor, "count rows cols"]


def pool_masks(
    maps: DenseMap, masks: Sequence[Float[Tensor, "_ height width"] | Bool[Tensor, "_ height width"]]
) -> list[Float[Tensor, "_ dim"]]:
    """Return ``sum(m * f) / (sum(m) + 1e-12)`` for every mask ``m`` on the cells of the map ``f`` of its image.

    The result is differentiable with respect to maps and masks; an empty mask gives zeros.

    Args:
        maps: Any features on a grid; CLIPSelf normalises them first.
        masks: One entry an image, true and false or non-negative weights on the cells of the map.

    Raises:
        InputError: If ``masks`` does not have one entry an image, or a mask is not on the cells of its map.

    Source: mask pooling of CLIPSelf (wusize/CLIPSelf, eva_clip/eva_vit_model.py and open_clip/transformer.py).
    """
    return weighted_sums(maps, [_shares(mask) for mask in masks])


def masks_to_cells(masks: Masks, placement: Placement, patch: int, *, policy: str = "area") -> CellMasks:
    """Turn masks on the original image into weights from 0 to 1 on the cells of the map of its canvas.

    The map has ``ceil(side / patch)`` cells along each side of the canvas. No mask with a true pixel comes out empty:
    where the policy finds no cell, all cells that the mask touches are taken, and for a mask that lies wholly beyond
    the canvas (a centre crop may have cut it away) the cell nearest to it.

    Args:
        masks: One plane a region, of the size of the original image.
        placement: Where the image lies on the canvas.
        patch: Side of a cell in canvas pixels.
        policy: ``area``, the fraction of each cell that the mask covers; ``any``, 1 for every cell that it touches;
            ``official``, CLIPSelf's evaluation: the mask shrunk to the grid by bicubic interpolation without
            antialiasing, 1 where positive; ``official-antialias``, the same with antialiasing, which torchvision
            turned on by default in 0.17 and which widens every mask by about a cell.

    Raises:
        InputError: If the policy is unknown, the masks have another size than the image, or an official policy meets
            an image that does not lie in the top left corner with its aspect ratio kept.

    Source: wusize/CLIPSelf, training/data.py (COCOPanopticDataset) and open_clip/transform.py (ResizeLongest).
    """
    if policy not in _POLICIES:
        raise InputError(f"unknown mask policy {policy!r}. {suggest(policy, _POLICIES)}")
    if not len(masks):
        return masks.new_zeros((0, *cell_counts(placement, patch)), dtype=torch.float32)
    if tuple(masks.shape[1:]) != placement.original:
        raise InputError(
            f"masks of {tuple(masks.shape[1:])} on an image of {placement.original} (height, width): "
            "masks must have the size of the original image."
        )
    cells = _POLICIES[policy](masks, placement, patch)
    empty = ~cells.flatten(1).any(dim=1) & masks.flatten(1).any(dim=1)
    if empty.any():
        cells[empty] = _touched(masks[empty], placement, patch)
    return cells


def cell_counts(placement: Placement, patch: int) -> tuple[int, int]:
    """Return the rows and columns of the map of a canvas; the last ones may stick out of it."""
    return math.ceil(placement.canvas[0] / patch), math.ceil(placement.canvas[1] / patch)


def _shares(mask: Float[Tensor, "count rows cols"] | Bool[Tensor, "count rows cols"]) -> CellMasks:
    """Divide weights by their sum, in single precision at least: 1e-12 is zero in half precision."""
    weights = mask if mask.dtype == torch.float64 else mask.float()
    return weights / (weights.sum(dim=(1, 2), keepdim=True) + 1e-12)


def _area(masks: Masks, placement: Placement, patch: int) -> CellMasks:
    """Resample by area: an original pixel is a rectangle on the canvas, and rectangles are separable."""
    rows, cols = cell_counts(placement, patch)
    (height, width), (bottom, right) = placement.original, placement.canvas
    down = _overlaps(height, placement.top, placement.height, bottom, rows, patch).to(masks.device)
    across = _overlaps(width, placement.left, placement.width, right, cols, patch).to(masks.device)
    parts = [(down @ part.float()) @ across.T for part in torch.split(masks, _PART)]
    return torch.cat(parts).clamp(max=1)


def _overlaps(
    pixels: int, start: float, span: float, limit: int, cells: int, patch: int
) -> Float[Tensor, "cells pixels"]:
    """Return which fraction of each cell of one axis each original pixel covers, within the canvas."""
    edges = start + torch.arange(pixels + 1, dtype=torch.float64) * (span / pixels)
    borders = (torch.arange(cells + 1, dtype=torch.float64) * patch).clamp(max=limit)[:, None]
    shared = torch.minimum(edges[1:], borders[1:]) - torch.maximum(edges[:-1], borders[:-1])
    # Below a billionth of a cell an overlap is the rounding of two edges that coincide.
    fraction = shared / patch
    return torch.where(fraction > 1e-9, fraction, 0).float()


def _any(masks: Masks, placement: Placement, patch: int) -> CellMasks:
    return (_area(masks, placement, patch) > 0).float()


def _touched(masks: Masks, placement: Placement, patch: int) -> CellMasks:
    """Return the cells that each mask touches; for a mask beyond the canvas the cell nearest to its centre."""
    cells = _any(masks, placement, patch)
    x0, y0, x1, y1 = placement.content
    boxes = placement.boxes_to_canvas(masks_to_boxes(masks)).cpu().unbind(1)
    cols = _nearest((boxes[0] + boxes[2]) / 2, x0, x1, patch)
    rows = _nearest((boxes[1] + boxes[3]) / 2, y0, y1, patch)
    lost = (~cells.flatten(1).any(dim=1)).nonzero().squeeze(1)
    cells[lost, rows.to(lost)[lost], cols.to(lost)[lost]] = 1
    return cells


def _nearest(centres: Float[Tensor, " count"], start: float, end: float, patch: int) -> Tensor:
    return (centres / patch).floor().clamp(math.floor(start / patch), math.ceil(end / patch) - 1).long()


def _official(masks: Masks, placement: Placement, patch: int, antialias: bool = False) -> CellMasks:
    rows, cols = cell_counts(placement, patch)
    height, width = _official_size(placement, patch)
    if height > rows or width > cols:
        raise InputError(f"{height} x {width} cells of image do not fit a map of {rows} x {cols}: use policy 'area'.")
    shrink = [
        F.interpolate(part[:, None].float(), (height, width), mode="bicubic", antialias=antialias)[:, 0] > 0
        for part in torch.split(masks, _PART)
    ]
    return F.pad(torch.cat(shrink).float(), (0, cols - width, 0, rows - height))


def _official_antialias(masks: Masks, placement: Placement, patch: int) -> CellMasks:
    return _official(masks, placement, patch, antialias=True)


def _official_size(placement: Placement, patch: int) -> tuple[int, int]:
    """Return the cells that ResizeLongest gives an image whose longest side fills the canvas."""
    across, down = placement.scale
    drift = abs(across / down - 1) * min(placement.width, placement.height)
    if placement.left or placement.top or drift > 1:
        raise InputError(
            "the official mask policies need an image in the top left corner with its aspect ratio kept, "
            f"not {placement}: use policy 'area'."
        )
    factor = round(max(placement.height, placement.width) / patch) / max(placement.original)
    height, width = (max(1, round(side * factor)) for side in placement.original)
    return height, width


_PART = 16
"""Masks that are resampled at a time, so that a hundred large ones do not fill the memory as floats."""

_POLICIES: dict[str, Callable[[Masks, Placement, int], CellMasks]] = {
    "area": _area,
    "any": _any,
    "official": _official,
    "official-antialias": _official_antialias,
}
