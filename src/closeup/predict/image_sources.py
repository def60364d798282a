"""Many images in a row: a bad one is noted and passed over, so that it does not end the work on all the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import PIL.Image

from closeup._types import ImageLike
from closeup.data.images import open_image
from closeup.errors import CloseupError


@dataclass(frozen=True, slots=True, eq=False)
class Skipped:
    """An image that could not be used: its place among the images, from 0, and why."""

    index: int
    image: ImageLike
    error: CloseupError

    def __str__(self) -> str:
        name = self.image if not hasattr(self.image, "size") else f"image {self.index}"
        return f"{name}: {self.error}"


def opened(
    images: Iterable[ImageLike], skipped: list[Skipped] | None = None
) -> Iterator[tuple[int, ImageLike, PIL.Image.Image]]:
    """Yield the place, the source and the RGB picture of every image, opened when its turn comes.

    An image that cannot be opened is added to ``skipped``; without such a list its ImageError is raised.
    """
    for index, image in enumerate(images):
        try:
            picture = open_image(image)
        except CloseupError as error:
            if skipped is None:
                raise
            skipped.append(Skipped(index, image, error))
            continue
        yield index, image, picture
