"""Cutting regions out of an image, for the encoders that see one region at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
import PIL.Image
from jaxtyping import Bool
from torch import Tensor

from closeup._types import Boxes
from closeup.errors import ConfigError, InputError
from closeup.geometry import enlarge, masks_to_boxes

Fill = Literal["mean", "zero"]
Shape = Literal["pad", "squash", "own"]
Corners = Literal["round", "truncate", "outward"]
Resize = Literal["antialias", "plain"]

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""The mean colour of CLIP's training images, red, green and blue from 0 to 1."""


def _is_positive(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value > 0


@dataclass(frozen=True, slots=True)
class CropPolicy:
    """How a region is cut out and brought to the model's input size.

    The defaults are CLIPSelf's teacher crops of grid cells; its crops of things have ``enlarge`` 1.5. OVSeg's crops
    are masked, filled with the mean and squashed.
    """

    enlarge: float = 1.0
    """The factor of the box about its own centre, context included; what leaves the image is clipped away."""

    fill: Fill = "mean"
    """What masked-out pixels become: the model's mean colour, which normalises to zero, or black."""

    shape: Shape = "pad"
    """What the model's preprocess does with the crop: keep its aspect ratio and pad around it, squash it, or what is
    its own with whole pictures, mostly to see the middle: a square as wide as the short side."""

    masked: bool = False
    """Whether pixels outside the region's mask are replaced by the fill."""

    corners: Corners = "round"
    """How the box becomes whole pixels: to the nearest one, cut towards the top left, as OVSeg does, or outward to
    every pixel that it touches, as FG-CLIP does."""

    resize: Resize = "antialias"
    """How a crop comes to its size: by PIL's filter, which averages what it shrinks, or bicubic between the four
    nearest pixels alone, as OVSeg does."""

    def __post_init__(self) -> None:
        if not _is_positive(self.enlarge):
            raise ConfigError(f"enlarge is {self.enlarge!r}: give a positive factor; 1.0 is the box itself.")
        if self.fill not in get_args(Fill):
            raise ConfigError(f"fill is {self.fill!r}: use one of {get_args(Fill)}.")
        if self.shape not in get_args(Shape):
            raise ConfigError(f"shape is {self.shape!r}: use one of {get_args(Shape)}.")
        if self.corners not in get_args(Corners):
            raise ConfigError(f"corners is {self.corners!r}: use one of {get_args(Corners)}.")
        if self.resize not in get_args(Resize):
            raise ConfigError(f"resize is {self.resize!r}: use one of {get_args(Resize)}.")


FG_CLIP = CropPolicy(shape="own", corners="outward")
"""How FG-CLIP cuts: every pixel that the box touches, seen as any picture is, so that of long things the ends are lost.

There a box that is enlarged moves by up to a pixel, since half of what it gains is rounded down; here its centre stays.

Source: ``lorebianchi98/FG-CLIP`` ``fg-ovd_feature_extraction/extraction.py``; the paper does not enlarge.
"""


def crop_regions(
    image: PIL.Image.Image,
    boxes: Boxes | None = None,
    masks: Bool[Tensor, "planes height width"] | None = None,
    policy: CropPolicy = CropPolicy(),
    *,
    mean: tuple[float, float, float] = OPENAI_MEAN,
) -> list[PIL.Image.Image]:
    """Cut every region out of an image, at its own size and aspect ratio.

    Args:
        image: An RGB picture.
        boxes: The regions; the tight boxes of the masks where absent.
        masks: The shapes inside the boxes; needed for a masked policy and ignored by any other when there are boxes.
        policy: How to cut.
        mean: The model's mean colour from 0 to 1, for the fill ``mean``.

    Raises:
        InputError: If there are neither boxes nor masks, no masks for a masked policy, or not as many of the two.

    Source: the teacher crops of CLIPSelf (wusize/CLIPSelf, training/data.py) and the masked crops of OVSeg
    (facebookresearch/ov-seg, clip_adapter/adapter.py), which truncates corners to whole pixels (``corners``).
    """
    if boxes is None:
        if masks is None:
            raise InputError("neither boxes nor masks to crop: give one of them.")
        boxes = masks_to_boxes(masks)
    corners = crop_corners(boxes, image.height, image.width, policy.enlarge, policy.corners)
    if not policy.masked:
        return [image.crop(corner) for corner in corners]
    if masks is None or len(masks) != len(corners):
        raise InputError(
            f"a masked crop needs one mask a box, got {'none' if masks is None else len(masks)} for {len(corners)}."
        )
    if tuple(masks.shape[1:]) != (image.height, image.width):
        raise InputError(
            f"masks of {tuple(masks.shape[1:])} on an image of {(image.height, image.width)} (height, width): "
            "masks must have the size of the original image."
        )
    level = np.array([round(255 * value) for value in mean] if policy.fill == "mean" else (0, 0, 0), dtype=np.uint8)
    pixels, planes = np.asarray(image), masks.cpu().numpy()
    return [
        PIL.Image.fromarray(np.where(plane[y0:y1, x0:x1, None], pixels[y0:y1, x0:x1], level))
        for plane, (x0, y0, x1, y1) in zip(planes, corners, strict=True)
    ]


ROUNDING: Mapping[Corners, tuple[Callable[[float], int], Callable[[float], int]]] = MappingProxyType(
    {"round": (round, round), "truncate": (int, int), "outward": (math.floor, math.ceil)}
)
"""What makes whole pixels of the lower and of the upper corner."""


def crop_corners(
    boxes: Boxes, height: int, width: int, factor: float = 1.0, corners: Corners = "round"
) -> list[tuple[int, int, int, int]]:
    """Return the whole pixels, x0, y0, x1, y1, that are cut for each box.

    The box is enlarged about its centre, clipped to the image, and its corners are rounded to the nearest whole pixel,
    halves to the even one, as PIL's ``crop`` does with CLIPSelf's boxes, truncated, or moved outward. A box that would
    round to nothing, or that lies outside the image, gets the nearest pixel inside.

    Args:
        boxes: In pixels of the image.
        height: Of the image.
        width: Of the image.
        factor: As ``CropPolicy.enlarge``.
        corners: As ``CropPolicy.corners``.
    """
    whole = ROUNDING[corners]
    spread = enlarge(boxes.double().cpu(), factor).tolist()
    columns = [_whole_span(x0, x1, width, *whole) for x0, _, x1, _ in spread]
    lines = [_whole_span(y0, y1, height, *whole) for _, y0, _, y1 in spread]
    return [(x0, y0, x1, y1) for (x0, x1), (y0, y1) in zip(columns, lines, strict=True)]


def _whole_span(
    start: float, end: float, length: int, lower: Callable[[float], int], upper: Callable[[float], int]
) -> tuple[int, int]:
    first, last = lower(min(max(start, 0.0), float(length))), upper(min(max(end, 0.0), float(length)))
    if last > first:
        return first, last
    first = min(max(math.floor((start + end) / 2), 0), length - 1)
    return first, first + 1
