"""Masks cut into the parts that hang together, and without what is too thin."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from skimage.measure import label
from torch import Tensor

from closeup._types import Masks


def connected_parts(
    masks: Masks, *, smallest: int = 1, limit: int | None = None
) -> tuple[Bool[Tensor, "parts height width"], Int[Tensor, " parts"]]:
    """Return every connected part of masks as a plane of its own, on the CPU, and the index of the mask it is from.

    Pixels hang together along their sides, not across corners. Parts of fewer than ``smallest`` pixels are left out,
    and of more than ``limit`` parts all but the largest; those that stay are in the order of their masks.
    """
    numbered, found = [], []
    for index, mask in enumerate(masks.cpu().numpy()):
        numbers = label(mask, connectivity=1).astype(np.int32)
        sizes = np.bincount(numbers.ravel())[1:].tolist()  # what lies outside is number 0
        found += [(size, index, number) for number, size in enumerate(sizes, start=1) if size >= smallest]
        numbered.append(numbers)
    if limit is not None and len(found) > limit:
        largest = sorted(found, key=lambda part: -part[0])[:limit]
        found = sorted(largest, key=lambda part: part[1:])
    planes = torch.zeros(len(found), *masks.shape[1:], dtype=torch.bool)
    for plane, (_, index, number) in zip(planes, found, strict=True):
        plane.copy_(torch.from_numpy(numbered[index] == number))
    return planes, torch.tensor([index for _, index, _ in found], dtype=torch.long)


def opened(masks: Masks, radius: int) -> Masks:
    """Return masks without what is too thin for a square of ``2 radius + 1`` pixels a side (a morphological opening).

    Beyond its edge the picture goes on as any mask wants it, so that what the edge cuts is not thin for that.
    """
    eaten = _grown((~masks)[:, None].float(), radius)
    return _grown(1 - eaten, radius)[:, 0] > 0


def _grown(masks: Float[Tensor, "count 1 height width"], radius: int) -> Float[Tensor, "count 1 height width"]:
    """Return the largest value in the square around each pixel, rows first and then columns."""
    side = 2 * radius + 1
    lines = F.max_pool2d(masks, (1, side), 1, (0, radius))
    return F.max_pool2d(lines, (side, 1), 1, (radius, 0))
