"""What boxes and masks must be at the public edge; every message names the region that is wrong."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from closeup._types import Boxes, Masks
from closeup.errors import InputError


def as_boxes(value: object, what: str = "the image") -> Boxes:
    """Turn a tensor, an array or a list of four-number rows into float boxes; an empty list into no boxes.

    Args:
        value: What a user gave.
        what: The image's name in messages.

    Raises:
        InputError: If it is not a table of numbers with four columns.
    """
    boxes = _as_tensor(value, f"boxes of {what}", "rows of x0, y0, x1, y1 in pixels")
    if boxes.is_complex() or boxes.dtype == torch.bool:
        raise InputError(f"boxes of {what} have type {boxes.dtype}: give numbers x0, y0, x1, y1 in pixels.")
    if boxes.ndim in (1, 2) and boxes.numel() == 0:
        return boxes.new_zeros((0, 4), dtype=torch.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        hint = " A single box is a list of one box: [[x0, y0, x1, y1]]." if boxes.shape == (4,) else ""
        raise InputError(
            f"boxes of {what} have shape {tuple(boxes.shape)}: give (N, 4), rows of x0, y0, x1, y1 in pixels.{hint}"
        )
    return boxes if boxes.dtype == torch.float64 else boxes.float()


def as_masks(value: object, what: str = "the image") -> Masks:
    """Turn a tensor, an array or a list of planes into bool masks; whole numbers must be 0 and 1, or 0 and 255.

    Args:
        value: What a user gave.
        what: The image's name in messages.

    Raises:
        InputError: If it is not a stack of equal planes of true and false.
    """
    if isinstance(value, (list, tuple)):
        value = _stack(value, what)
    masks = _as_tensor(value, f"masks of {what}", "bool planes (N, height, width)")
    if masks.ndim != 3:
        hint = " A single mask is a stack of one: mask[None]." if masks.ndim == 2 else ""
        raise InputError(f"masks of {what} have shape {tuple(masks.shape)}: give (N, height, width).{hint}")
    if masks.dtype == torch.bool:
        return masks
    if masks.is_floating_point() or masks.is_complex():
        raise InputError(f"masks of {what} have type {masks.dtype}: give bool, scores > 0.5 for example.")
    top = 255 if masks.numel() and int(masks.max()) == 255 else 1
    odd = ((masks != 0) & (masks != top)).flatten(1).any(dim=1).nonzero().flatten().tolist()
    if odd:
        seen = torch.unique(masks[odd[0]])[:6].tolist()
        raise InputError(
            f"mask {odd[0]} of {what} holds the values {seen}: give bool planes, one a region; not a map of labels."
        )
    return masks != 0


def check_boxes(boxes: Tensor, height: int, width: int, what: str = "the image") -> None:
    """Make sure that boxes are xyxy pixels of an image, with an area, and at least partly on it.

    Args:
        boxes: The boxes to check.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        what: The image's name in messages.

    Raises:
        InputError: With the index and the value of the first wrong box, and what is wrong about it.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"boxes of {what} have shape {tuple(boxes.shape)}: give (N, 4), rows of x0, y0, x1, y1.")
    finite = boxes.isfinite().all(dim=1)
    _first_box(~finite, boxes, what, "is not finite", "give numbers.")
    positive = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    _first_box(~positive, boxes, what, "has no area", _shape_hint(boxes, height, width))
    limit = boxes.new_tensor([width, height])
    seen = ((boxes[:, :2] < limit) & (boxes[:, 2:] > 0)).all(dim=1)
    advice = f"give pixels of the original image, which is {width} wide and {height} high."
    _first_box(~seen, boxes, what, "lies outside the image", advice)


def check_masks(masks: Tensor, height: int, width: int, what: str = "the image") -> None:
    """Make sure that masks are bool planes of the size of an image, each with a true pixel.

    Args:
        masks: The masks to check.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        what: The image's name in messages.

    Raises:
        InputError: For a wrong shape, size or type, or with the index of the first empty mask.
    """
    if masks.ndim != 3:
        raise InputError(f"masks of {what} have shape {tuple(masks.shape)}: give (N, height, width).")
    if len(masks) and tuple(masks.shape[1:]) != (height, width):
        swapped = " Height and width seem to be exchanged." if tuple(masks.shape[1:]) == (width, height) else ""
        raise InputError(
            f"masks of {what} are {tuple(masks.shape[1:])} and the image is {(height, width)} (height, width): "
            f"give masks on the original image.{swapped}"
        )
    if masks.dtype != torch.bool:
        raise InputError(f"masks of {what} have type {masks.dtype}: give bool, masks > 0 for example.")
    empty = (~masks.flatten(1).any(dim=1)).nonzero().flatten().tolist()
    if empty:
        more = f", and so are {len(empty) - 1} more" if len(empty) > 1 else ""
        raise InputError(f"mask {empty[0]} of {what} is empty{more}: leave out regions without a pixel.")


def _first_box(wrong: Tensor, boxes: Tensor, what: str, problem: str, advice: str) -> None:
    indices = wrong.nonzero().flatten().tolist()
    if indices:
        values = ", ".join(f"{value:g}" for value in boxes[indices[0]].tolist())
        more = f" (and {len(indices) - 1} more)" if len(indices) > 1 else ""
        raise InputError(f"box {indices[0]} of {what} {problem}: ({values}){more}; {advice}")


def _shape_hint(boxes: Tensor, height: int, width: int) -> str:
    """Say so when the boxes would all be good ones if they were x, y, width, height."""
    ends = boxes[:, :2] + boxes[:, 2:]
    fits = (boxes[:, 2:] > 0).all() and (boxes >= 0).all() and (ends <= ends.new_tensor([width, height]) + 1).all()
    if fits:
        return (
            "boxes are x0, y0, x1, y1, and these look like x, y, width, height: "
            "closeup.geometry.xywh_to_xyxy turns the one into the other."
        )
    return "x1 and y1 must be larger than x0 and y0."


def _stack(planes: list[object] | tuple[object, ...], what: str) -> object:
    """Stack a list of planes, and name the first whose size differs."""
    arrays = [_as_tensor(plane, f"mask {index} of {what}", "a bool plane") for index, plane in enumerate(planes)]
    for index, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise InputError(
                f"mask {index} of {what} is {tuple(array.shape)} and mask 0 is {tuple(arrays[0].shape)}: "
                "all masks of an image have its size."
            )
    return torch.stack(arrays) if arrays else torch.zeros(0, 0, 0, dtype=torch.bool)


def _as_tensor(value: object, what: str, wanted: str) -> Tensor:
    if isinstance(value, Tensor):
        return value
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise TypeError("it holds text" if array.dtype.kind in "US" else "not everything in it is a number")
        # Torch has neither foreign byte orders nor much arithmetic on wide unsigned numbers.
        wide = array.dtype.kind == "u" and array.itemsize > 1
        return torch.from_numpy(array.astype(np.int64 if wide else array.dtype.newbyteorder("="), order="C"))
    except (TypeError, ValueError) as error:
        reason = "rows of different lengths" if "inhomogeneous" in str(error) else error
        raise InputError(f"{what} cannot be read ({reason}): give {wanted}.") from error
