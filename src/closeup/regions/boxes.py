"""Box pooling: RoIAlign as products of small matrices.

RoIAlign averages bilinear samples on a regular grid inside every bin. Bilinear interpolation is a product of one
factor along y and one along x, and so is a regular grid of samples; hence the whole operation is, exactly,
``value[i, j] = sum_y sum_x rows[i, y] cols[j, x] map[y, x]`` for the bins ``i, j`` of a box, with one small matrix of
weights an axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from closeup._types import DenseMap
from closeup.errors import InputError
from closeup.regions.pool import check_batch, weighted_sums


def pool_boxes(
    maps: DenseMap,
    boxes: Sequence[Float[Tensor, "_ 4"]],
    *,
    bins: int = 1,
    sampling_ratio: int = -1,
    extents: Sequence[tuple[float, float, float, float]] | None = None,
) -> list[Float[Tensor, "_ dim *bins"]]:
    """Pool every box of every image from the dense map, as torchvision's ``roi_align(aligned=True)`` does.

    The result is differentiable with respect to the maps. A sample farther than one cell outside the map counts as
    zero, a nearer one takes the border's value; a box without area has no adaptive samples and gives zeros.

    Args:
        maps: Any features on a grid; CLIPSelf normalises them first.
        boxes: One entry an image, xyxy in cells of the map (cell ``i`` spans ``i`` to ``i + 1``); they may reach
            outside, and they may live on another device than the maps: the weights are made where the boxes are.
        bins: The side of the output grid; with 1 the grid's axes are left out of the result.
        sampling_ratio: Samples a bin along each axis; -1 or 0 takes ``ceil(size of the bin in cells)``.
        extents: The part of each map that shows the image, ``x0, y0, x1, y1`` in cells. The result is that of the map
            cut to these cells (partly covered ones are kept), so that a pad never enters a region.

    Raises:
        InputError: If ``boxes`` or ``extents`` do not have one entry an image, or ``bins`` is not positive.

    Source: RoIAlign of Mask R-CNN (He et al., 2017); 1 x 1 bins with adaptive samples in CLIPSelf (wusize/CLIPSelf,
    eva_vit_model.py and transformer.py), K x K in RegionCLIP. We differ for a box with a negative side, which gives
    zeros at every sampling ratio.
    """
    check_batch(len(maps), len(boxes), "boxes")
    if bins < 1:
        raise InputError(f"bins is {bins}: give 1 or more.")
    counts = [len(part) for part in boxes]
    rows, cols = box_weights(boxes, maps.shape[2:], bins=bins, sampling_ratio=sampling_ratio, extents=extents)
    if bins == 1:
        return weighted_sums(maps, torch.split(rows.mT * cols, counts))
    parts = zip(maps, torch.split(rows.to(maps), counts), torch.split(cols.to(maps), counts), strict=True)
    return [_grid_sums(features, row, col) for features, row, col in parts]


def box_weights(
    boxes: Sequence[Float[Tensor, "_ 4"]],
    size: Sequence[int],
    *,
    bins: int = 1,
    sampling_ratio: int = -1,
    extents: Sequence[tuple[float, float, float, float]] | None = None,
) -> tuple[Float[Tensor, "regions bins rows"], Float[Tensor, "regions bins cols"]]:
    """Return the weights along y and along x of all boxes of all images, those of the first image first.

    Args:
        boxes: One entry an image, xyxy in cells.
        size: Rows and columns of the map.
        bins: As in ``pool_boxes``.
        sampling_ratio: As in ``pool_boxes``.
        extents: As in ``pool_boxes``.
    """
    height, width = size
    if extents is None:
        extents = [(0.0, 0.0, float(width), float(height))] * len(boxes)
    check_batch(len(boxes), len(extents), "extents")
    flat = torch.cat(list(boxes)) if boxes else torch.zeros(0, 4)
    flat = flat.float() if flat.dtype in (torch.float16, torch.bfloat16) else flat
    cells = torch.tensor([whole_cells(extent, height, width) for extent in extents], dtype=flat.dtype).reshape(-1, 4)
    limits = cells.repeat_interleave(torch.tensor([len(part) for part in boxes], dtype=torch.long), dim=0)
    limits = limits.to(flat.device)
    cols = axis_weights(flat[:, 0::2], limits[:, 0::2], width, bins=bins, sampling_ratio=sampling_ratio)
    rows = axis_weights(flat[:, 1::2], limits[:, 1::2], height, bins=bins, sampling_ratio=sampling_ratio)
    return rows, cols


def whole_cells(extent: tuple[float, float, float, float], height: int, width: int) -> tuple[int, int, int, int]:
    """Return the smallest rectangle of whole cells, at least one and inside the map, that holds an xyxy extent."""
    left, top = min(max(math.floor(extent[0]), 0), width - 1), min(max(math.floor(extent[1]), 0), height - 1)
    return left, top, max(min(math.ceil(extent[2]), width), left + 1), max(min(math.ceil(extent[3]), height), top + 1)


def axis_weights(
    spans: Float[Tensor, "regions 2"],
    limits: Float[Tensor, "regions 2"],
    length: int,
    *,
    bins: int,
    sampling_ratio: int,
) -> Float[Tensor, "regions bins length"]:
    """Return the weight of every cell of one axis in every bin of every box.

    No sample is made: samples are equidistant, so that how many of them lie between two cell centres follows from a
    division, and how far they lie beyond the first centre from the sum of an arithmetic series. The cost does not
    depend on the size of a box, every box may have its own number of samples, and the sum has one order on any device.

    Args:
        spans: Start and end of the boxes, in cells.
        limits: First cell and end of the cells that may get weight, whole numbers.
        length: The number of cells.
        bins: As in ``pool_boxes``.
        sampling_ratio: As in ``pool_boxes``.
    """
    start, end = (spans - 0.5)[:, :, None, None].unbind(1)  # the centre of cell i is at i
    low, high = limits[:, :, None, None].unbind(1)
    width = (end - start) / bins
    samples = width.ceil() if sampling_ratio < 1 else torch.full_like(width, sampling_ratio)
    samples = torch.where(width < 0, 0, samples)
    per_bin = samples.clamp(min=1)
    origin = start + torch.arange(bins, device=spans.device)[:, None] * width

    def position(index: Tensor) -> Tensor:
        return origin + (index + 0.5) * width / per_bin

    def below(place: Tensor) -> Tensor:
        guess = ((place - origin) * per_bin / width - 0.5).ceil().nan_to_num(0)
        guess = torch.minimum(guess.clamp(min=0), samples)
        # Division rounds; a sample at the very edge must fall on the side where its own position puts it.
        guess = guess - ((guess > 0) & (position(guess - 1) >= place)).to(guess)
        return guess + ((guess < samples) & (position(guess) < place)).to(guess)

    edges = torch.arange(length + 1, device=spans.device, dtype=spans.dtype)
    begun = below(edges)
    inside = begun.diff()
    beyond = inside * (position(begun[..., :-1]) - edges[:-1] + (inside - 1) / 2 * width / per_bin)
    beyond = torch.where((edges[:-1] >= low) & (edges[:-1] < high - 1), beyond, 0)
    # Samples up to one cell outside the limits stand on the border cell; farther ones are zero.
    begun = torch.where(edges <= low, below(low - 1), begun)
    begun = torch.where(edges >= high, below(torch.nextafter(high, high + 1)), begun)
    weights = begun.diff() - beyond
    weights[..., 1:] += beyond[..., :-1]
    return weights / per_bin


def _grid_sums(
    features: Float[Tensor, "dim height width"],
    rows: Float[Tensor, "regions bins height"],
    cols: Float[Tensor, "regions bins width"],
) -> Float[Tensor, "regions dim bins bins"]:
    """Apply the two weights one after the other: bins times cheaper than their product when there are many bins."""
    dim, height, width = features.shape
    flat = features.permute(1, 2, 0).reshape(height, width * dim)
    # What lies between the two products is large: on a CPU it is kept within the cache.
    budget = 2**21 if features.device.type == "cpu" else 2**27
    step = max(1, budget // (rows.shape[1] * width * dim))
    cells = [
        col[:, None] @ (row.flatten(0, 1) @ flat).reshape(*row.shape[:2], width, dim)
        for row, col in zip(torch.split(rows, step), torch.split(cols, step), strict=True)
    ]
    return torch.cat(cells).permute(0, 3, 1, 2)
