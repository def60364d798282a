"""The only place where coordinates change frame: box formats, and an image placed on a canvas."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from closeup._types import Boxes, Masks


def xywh_to_xyxy(boxes: Boxes) -> Boxes:
    """Turn ``x, y, width, height`` rows into ``x0, y0, x1, y1`` rows, same units."""
    return torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)


def xyxy_to_xywh(boxes: Boxes) -> Boxes:
    """Turn ``x0, y0, x1, y1`` rows into ``x, y, width, height`` rows, same units."""
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)


def areas(boxes: Boxes) -> Float[Tensor, " count"]:
    """Return the area of every xyxy box, in the square of its unit; zero where a side is not positive."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    return sides[:, 0] * sides[:, 1]


def enlarge(boxes: Boxes, factor: float) -> Boxes:
    """Scale every xyxy box about its own centre; the result may leave the image."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) / 2 * factor
    return torch.cat([centre - half, centre + half], dim=1)


def clip_boxes(boxes: Boxes, height: float, width: float) -> Boxes:
    """Cut xyxy boxes to the rectangle from 0, 0 to ``width``, ``height``."""
    limit = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limit)


def masks_to_boxes(masks: Masks) -> Boxes:
    """Return the tight half-open xyxy box of every mask; all zeros for an empty mask."""
    return torch.cat([_span(masks.any(dim=1)), _span(masks.any(dim=2))], dim=1)[:, [0, 2, 1, 3]]


def _span(hit: Bool[Tensor, "count length"]) -> Float[Tensor, "count 2"]:
    length = hit.shape[1]
    index = torch.arange(length, device=hit.device)
    first = torch.where(hit, index, length).amin(dim=1)
    last = torch.where(hit, index + 1, 0).amax(dim=1)
    return torch.stack([torch.minimum(first, last), last], dim=1).float()


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an original image lies on the canvas that a model sees.

    ``original`` and ``canvas`` are ``(height, width)`` in pixels of their own frames. The whole
    original image fills the rectangle that starts at ``left, top`` and is ``width`` by ``height``
    canvas pixels; it may reach beyond the canvas when the image was centre-cropped.
    """

    original: tuple[int, int]
    canvas: tuple[int, int]
    left: float
    top: float
    width: float
    height: float

    @property
    def scale(self) -> tuple[float, float]:
        """Canvas pixels per original pixel, ``(x, y)``."""
        return self.width / self.original[1], self.height / self.original[0]

    @property
    def content(self) -> tuple[float, float, float, float]:
        """The part of the canvas that shows the image and not pad, ``x0, y0, x1, y1`` in canvas pixels."""
        return (
            max(self.left, 0.0),
            max(self.top, 0.0),
            min(self.left + self.width, float(self.canvas[1])),
            min(self.top + self.height, float(self.canvas[0])),
        )

    def boxes_to_canvas(self, boxes: Boxes) -> Boxes:
        """Map xyxy boxes from original pixels to canvas pixels; nothing is clipped."""
        scale = boxes.new_tensor(self.scale * 2)
        return boxes * scale + boxes.new_tensor([self.left, self.top] * 2)

    def boxes_to_original(self, boxes: Boxes) -> Boxes:
        """Map xyxy boxes from canvas pixels to original pixels; nothing is clipped."""
        scale = boxes.new_tensor(self.scale * 2)
        return (boxes - boxes.new_tensor([self.left, self.top] * 2)) / scale
