"""How a picture is shown in training: which part of it, how large, and where its boxes, masks and labels are then."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from closeup._types import Boxes, LabelMap, Masks
from closeup.geometry import clip_boxes


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """The part of a picture that is seen (x0, y0, x1, y1 in its pixels), and the width and height it is shown at."""

    seen: tuple[float, float, float, float]
    shown: tuple[int, int]

    def picture(self, picture: PIL.Image.Image) -> PIL.Image.Image:
        """Return what is seen of the picture, as it is shown."""
        # Cutting before resizing spares the parts that are not seen.
        return picture.resize(self.shown, PIL.Image.Resampling.BICUBIC, box=self.seen)

    def labels(self, label_map: LabelMap) -> Int[Tensor, "rows columns"]:
        """Return the labels of the picture's pixels as they are shown, each the nearest one's."""
        (left, top, right, bottom), (width, height) = self.seen, self.shown
        rows, cols = _nearest(top, bottom, height), _nearest(left, right, width)
        return label_map[rows.clamp(max=label_map.shape[0] - 1)][:, cols.clamp(max=label_map.shape[1] - 1)]

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
    return drawn_cut(picture, factor * size / max(picture), size, rng)


def drawn_cut(picture: tuple[int, int], scale: float, size: int, rng: np.random.Generator) -> View:
    """Return a picture of (width, height) made ``scale`` times as large, and cut at random to ``size``."""
    width, height = (max(1, round(side * scale)) for side in picture)
    left, top = (int(rng.integers(max(side - size, 0) + 1)) for side in (width, height))
    shown = (min(width, size), min(height, size))
    across, down = picture[0] / width, picture[1] / height
    return View((left * across, top * down, (left + shown[0]) * across, (top + shown[1]) * down), shown)


def _nearest(start: float, stop: float, count: int) -> Int[Tensor, " {count}"]:
    """Return the pixels in which the centres of ``count`` equal parts of a span lie."""
    return (start + (torch.arange(count, dtype=torch.float64) + 0.5) * ((stop - start) / count)).floor().long()
