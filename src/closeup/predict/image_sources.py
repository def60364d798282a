"""Many images in a row: a bad one is noted and passed over, so that it does not end the work on all the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import PIL.Image

from closeup._types import Boxes, ImageLike, Masks
from closeup.data.images import open_image
from closeup.errors import CloseupError, InputError
from closeup.models.encode_regions import BoxTable, MaskStack
from closeup.regions import as_boxes, as_masks, check_boxes, check_masks


@dataclass(frozen=True, slots=True, eq=False)
class Skipped:
    """An image that could not be used: its place among the images, from 0, and why."""

    index: int
    image: ImageLike
    error: CloseupError

    def __str__(self) -> str:
        """Return the reason, with the place of an image that has no name."""
        return str(self.error) if isinstance(self.image, str | Path) else f"image {self.index}: {self.error}"


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """An RGB picture with where it came from and, if any, its checked regions."""

    image: ImageLike
    picture: PIL.Image.Image
    boxes: Boxes | None = None
    masks: Masks | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.picture.height, self.picture.width


def opened(
    images: Iterable[ImageLike],
    boxes: Iterable[BoxTable] | None = None,
    masks: Iterable[MaskStack] | None = None,
    *,
    skipped: list[Skipped] | None = None,
) -> Iterator[Opened]:
    """Yield every image with its regions, opened and checked when its turn comes.

    An image that cannot be opened, or whose regions are none of it, is added to ``skipped``; without such a
    list its error is raised.

    Raises:
        InputError: where boxes or masks do not have one entry an image.
    """
    for index, (image, its_boxes, its_masks) in enumerate(_rows(images, boxes, masks)):
        try:
            checked = _open(image, its_boxes, its_masks)
        except CloseupError as error:
            if skipped is None:
                raise
            skipped.append(Skipped(index, image, error))
        else:
            yield checked


def _open(image: ImageLike, boxes: BoxTable | None, masks: MaskStack | None) -> Opened:
    picture = open_image(image)
    what = str(image) if isinstance(image, str | Path) else "the image"
    its_boxes = None if boxes is None else as_boxes(boxes)
    its_masks = None if masks is None else as_masks(masks)
    if its_boxes is not None:
        check_boxes(its_boxes, picture.height, picture.width, what)
    if its_masks is not None:
        check_masks(its_masks, picture.height, picture.width, what)
    return Opened(image, picture, its_boxes, its_masks)


def _rows(
    images: Iterable[ImageLike], boxes: Iterable[BoxTable] | None, masks: Iterable[MaskStack] | None
) -> Iterator[tuple[ImageLike, BoxTable | None, MaskStack | None]]:
    no_boxes, no_masks = boxes is None, masks is None
    columns = zip_longest(images, () if boxes is None else boxes, () if masks is None else masks)
    for index, (image, its_boxes, its_masks) in enumerate(columns):
        if image is None or (its_boxes is None) != no_boxes or (its_masks is None) != no_masks:
            raise InputError(
                f"Images, boxes and masks are not equally many: one of them ends after {index}. "
                "Give one entry an image, empty ones too."
            )
        yield image, its_boxes, its_masks
