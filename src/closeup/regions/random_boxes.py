"""Boxes drawn at random: regions that ask for no labels and no training."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from closeup.errors import InputError

SMALLEST = 0.01
"""The least share of a picture that a box covers."""
LONGEST = 2.0
"""The greatest ratio of a box's sides, in parts of the picture's."""


def random_boxes(count: int, rng: np.random.Generator) -> Float[Tensor, "count 4"]:
    """Return boxes inside a picture, xyxy in fractions of its width and height.

    Every order of size is as likely, from a hundredth of the picture to all of it, and so is every ratio of sides up to
    2 : 1; where a box lies is uniform.

    Raises:
        InputError: a negative count.

    Source of the idea: RegionCLIP (arXiv 2112.09106), which finds random boxes nearly as good as an RPN's; its own
    distribution is not known to us.
    """
    if count < 0:
        raise InputError(f"`count` must be 0 or more boxes, but got {count}.")
    area = np.exp(rng.uniform(np.log(SMALLEST), 0, count))
    ratio = np.exp(rng.uniform(-np.log(LONGEST), np.log(LONGEST), count))
    width = np.minimum(np.sqrt(area * ratio), 1)
    height = np.minimum(area / width, 1)
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return torch.from_numpy(np.stack([left, top, left + width, top + height], axis=1)).float().clamp(0, 1)
