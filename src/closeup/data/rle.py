"""COCO's three ways to write a mask: polygons, run lengths, and compressed run lengths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from pycocotools import mask as coco_mask

from closeup.errors import DataError


def decode_mask(segmentation: object, height: int, width: int, where: str) -> Bool[np.ndarray, "height width"]:
    """Return the mask that a COCO ``segmentation`` field describes, exactly as pycocotools draws it.

    ``where`` names the annotation in errors.

    Raises:
        DataError: the field is neither polygons nor run lengths, or is of another size than the image.
    """
    counts = _counts(segmentation, height, width, where)
    if counts.sum() != height * width or (counts < 0).any():
        raise DataError(f"{where}: the run lengths add up to {counts.sum()} pixels, not {height * width}.")
    # Runs go down the columns and begin with the outside.
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T


def encode_mask(mask: Bool[np.ndarray, "height width"]) -> dict[str, Any]:
    """Return a mask as COCO's compressed run lengths, ready for json: ``size`` (height, width) and ``counts``."""
    runs = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in runs["size"]], "counts": runs["counts"].decode("ascii")}


def uncompress(text: str, where: str) -> Int[np.ndarray, " runs"]:
    """Return the run lengths that a compressed string spells.

    Five bits a character, low bits first, a sixth that says "more follows", the last of the five as sign; from
    the fourth number on, differences to the number two places before. pycocotools has this code too, but what it
    decodes it hands over in a way that numpy 2 warns about.

    Raises:
        DataError: the string has a character outside of the code or ends inside a number.
    """
    codes = np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.int64) - 48
    if len(codes) == 0 or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise DataError(f"{where}: 'counts' is no compressed run length code: {text!r:.60}.")
    last = np.flatnonzero(codes & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(len(codes)) - np.repeat(first, last - first + 1)
    numbers = np.add.reduceat((codes & 31) << (5 * place), first)
    numbers -= np.where(codes[last] & 16, 1 << (5 * (place[last] + 1)), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def _counts(segmentation: object, height: int, width: int, where: str) -> Int[np.ndarray, " runs"]:
    if isinstance(segmentation, Mapping):
        return _run_lengths(segmentation, height, width, where)
    if isinstance(segmentation, list) and segmentation:
        for polygon in segmentation:
            _check_polygon(polygon, where)
        drawn = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
        return uncompress(drawn["counts"].decode("ascii"), where)
    raise DataError(f"{where}: 'segmentation' is polygons or run lengths, not {segmentation!r:.60}.")


def _run_lengths(runs: Mapping[str, Any], height: int, width: int, where: str) -> Int[np.ndarray, " runs"]:
    counts, size = runs.get("counts"), runs.get("size")
    if size != [height, width]:
        raise DataError(f"{where}: the mask is of size {size}, the image of [{height}, {width}] (height, width).")
    if isinstance(counts, str):
        return uncompress(counts, where)
    if isinstance(counts, list) and counts and all(isinstance(count, int) for count in counts):
        return np.array(counts, dtype=np.int64)
    raise DataError(f"{where}: 'counts' of a mask is whole numbers or a string, not {counts!r:.60}.")


def _check_polygon(polygon: object, where: str) -> None:
    # pycocotools takes a list of four numbers for a box, silently.
    points = polygon if isinstance(polygon, list) else []
    numbers = all(isinstance(value, int | float) for value in points)
    if not numbers or len(points) < 6 or len(points) % 2:
        raise DataError(f"{where}: a polygon is x, y pairs of at least three points, not {polygon!r:.60}.")
