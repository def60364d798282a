"""The picture that is drawn on: large enough for its labels, blended and outlined in one pass."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import PIL.Image
import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from closeup._types import IGNORE, ImageLike
from closeup.data.images import open_image
from closeup.viz.palette import Colour


def enlarged(image: ImageLike, min_side: int) -> tuple[PIL.Image.Image, int]:
    """Return a copy of an image and the whole factor that brings its longer side to ``min_side`` or more.

    The factor is 1 for an image that is large enough and for ``min_side=0``.
    """
    picture = open_image(image)
    factor = max(1, math.ceil(min_side / max(picture.width, picture.height)))
    size = (picture.width * factor, picture.height * factor)
    return picture.resize(size, PIL.Image.Resampling.BICUBIC) if factor > 1 else picture, factor


def repeated(plane: Shaped[Tensor, "rows cols"], factor: int) -> Shaped[Tensor, "rows_out cols_out"]:
    """Return a label map or mask with every pixel repeated ``factor`` times down and across."""
    return plane.repeat_interleave(factor, dim=0).repeat_interleave(factor, dim=1)


def stroke(width: int, height: int) -> int:
    """Return the width of a line, in pixels, that suits a picture."""
    return max(2, round(0.15 * math.sqrt(math.sqrt(width * height))))


def paint(
    picture: PIL.Image.Image, label_map: Int[Tensor, "height width"], colours: Sequence[Colour], alpha: float
) -> PIL.Image.Image:
    """Return a picture with the colour of each pixel's label over it; pixels of IGNORE stay as they are.

    Below an alpha of 1 the photograph shows through in grey, so that a colour is the same on everything
    and as in its label and legend.
    """
    table = torch.tensor([*colours, (0, 0, 0)], dtype=torch.float32)
    grey = torch.from_numpy(np.array(picture.convert("L"))).float()[..., None]
    mixed = table[label_map.long()] * alpha + grey * (1 - alpha)
    original = torch.from_numpy(np.array(picture))
    painted = torch.where((label_map == IGNORE)[..., None], original, mixed.round().byte())
    return PIL.Image.fromarray(painted.numpy())


def grown(mask: Bool[Tensor, "height width"], by: int) -> Bool[Tensor, "height width"]:
    """Return a mask with ``by`` pixels more on every side; corners become octagonal."""
    for step in range(by):
        mask = _spread(mask, square=step % 2 == 1)
    return mask


def shrunk(mask: Bool[Tensor, "height width"], by: int) -> Bool[Tensor, "height width"]:
    """Return a mask with ``by`` pixels less on every side; the picture's edge is no side."""
    return ~grown(~mask, by)


def borders(labels: Int[Tensor, "height width"]) -> Bool[Tensor, "height width"]:
    """Return the pixels that have another label beside, above or below them."""
    edge = torch.zeros_like(labels, dtype=torch.bool)
    down, across = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    return edge


def _spread(mask: Tensor, *, square: bool) -> Tensor:
    across = mask.clone()
    across[:, 1:] |= mask[:, :-1]
    across[:, :-1] |= mask[:, 1:]
    start = across if square else mask
    both = across.clone()
    both[1:] |= start[:-1]
    both[:-1] |= start[1:]
    return both
