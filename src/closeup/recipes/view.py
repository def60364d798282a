"""How a picture is shown in training: which part of it, how large, and where its boxes and masks are then."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from jaxtyping import Bool
from torch import Tensor

from closeup._types import Boxes, Masks
from closeup.geometry import clip_boxes


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """The part of a picture that is seen (x0, y0, x1, y1 in its pixels), and the width and height it is shown at."""

    seen: tuple[float, float, float, float]
    shown: tuple[int, int]

    def boxes(self, boxes: Boxes) -> Boxes:
        """Return boxes of the picture as they are shown, cut to what is seen."""
        (left, top, right, bottom), (width, height) = self.seen, self.shown
        across, down = width / (right - left), height / (bottom - top)
        moved = (boxes - boxes.new_tensor([left, top] * 2)) * boxes.new_tensor([across, down] * 2)
        return clip_boxes(moved, height, width)

    def masks(self, masks: Masks, size: int) -> Bool[Tensor, "count {size} {size}"]:
        """Return masks of the picture on a canvas of ``size`` pixels, in its top left corner."""
        width, height = self.shown
        canvas = torch.zeros(len(masks), size, size, dtype=torch.bool)
        for plane, mask in zip(canvas, masks, strict=True):
            shown = PIL.Image.fromarray(mask.numpy()).resize(self.shown, PIL.Image.Resampling.NEAREST, box=self.seen)
            plane[:height, :width] = torch.from_numpy(np.array(shown))
        return canvas


def mirrored(boxes: Boxes, width: int) -> Boxes:
    """Return the boxes of a picture of that width with left and right exchanged."""
    left, top, right, bottom = boxes.unbind(dim=1)
    return torch.stack([width - right, top, width - left, bottom], dim=1)


def drawn_view(picture: tuple[int, int], size: int, factor: float, rng: np.random.Generator) -> View:
    """Return a picture of (width, height) made ``factor`` times as long as ``size``, and cut at random to ``size``."""
    scale = factor * size / max(picture)
    width, height = (max(1, round(side * scale)) for side in picture)
    left, top = (int(rng.integers(max(side - size, 0) + 1)) for side in (width, height))
    shown = (min(width, size), min(height, size))
    across, down = picture[0] / width, picture[1] / height
    return View((left * across, top * down, (left + shown[0]) * across, (top + shown[1]) * down), shown)
