"""The masks of queries, as MaskFormer and its kin give them, on the original picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from closeup.errors import InputError
from closeup.predict.mask_files import FoundMasks

THRESHOLD = 0.5
"""The probability above which a pixel is part of a mask."""
PART = 16
"""Masks that are enlarged at a time, so that a hundred of a large photograph do not fill the memory as floats."""


def query_masks(
    logits: Float[Tensor, "queries rows cols"],
    scores: Float[Tensor, " queries"],
    *,
    canvas: tuple[int, int],
    content: tuple[int, int],
    size: tuple[int, int],
    threshold: float,
) -> FoundMasks:
    """Return the masks that have a pixel, on the CPU.

    Args:
        logits: Of the whole canvas, at any stride.
        scores: One a query.
        canvas: Height and width of what the network saw.
        content: Height and width of the picture on it, in the top left corner.
        size: Height and width of the original picture.
        threshold: The probability above which a pixel is part of a mask.
    """
    planes = []
    for part in logits.float().split(PART):
        seen = F.interpolate(part[None], canvas, mode="bilinear", align_corners=False)
        whole = F.interpolate(seen[:, :, : content[0], : content[1]], size, mode="bilinear", align_corners=False)[0]
        planes.append((whole.sigmoid() > threshold).cpu())
    masks = torch.cat(planes)
    kept = masks.flatten(1).any(dim=1)
    return FoundMasks(masks[kept], scores.float().cpu()[kept])


def check_threshold(threshold: float) -> None:
    """Raise InputError for a threshold that is no probability."""
    if not 0 <= threshold < 1:
        raise InputError(f"A threshold of {threshold}: give a probability of 0 to below 1.")
