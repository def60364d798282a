"""Several pictures on one sheet, each under its title."""

from __future__ import annotations

import math
from collections.abc import Sequence

import PIL.Image

from closeup.errors import InputError
from closeup.viz.legend import INK, PAPER
from closeup.viz.text import font_size, line


def draw_sheet(
    pictures: Sequence[PIL.Image.Image], titles: Sequence[str] | None = None, *, columns: int | None = None
) -> PIL.Image.Image:
    """Return pictures in rows of ``columns``, left to right, with titles above them; as square a sheet as fits.

    Every cell has the size of the largest width and height; smaller pictures are enlarged or shrunk to
    fit their cell, aspect kept, and centred.

    Raises:
        InputError: where there is no picture, ``columns`` is below 1, or titles and pictures are not equally many.
    """
    if not pictures:
        raise InputError("a sheet needs at least one picture, but there is none.")
    if titles is not None and len(titles) != len(pictures):
        raise InputError(f"each picture needs one title, but there are {len(pictures)} and {len(titles)} titles.")
    if columns is not None and columns < 1:
        raise InputError(f"columns must be 1 or more, not {columns}.")
    columns = min(columns or math.ceil(math.sqrt(len(pictures))), len(pictures))
    width, height = max(p.width for p in pictures), max(p.height for p in pictures)
    size = font_size(width, height)
    gap = size
    head = round(size * 1.6) if titles is not None else 0
    rows = math.ceil(len(pictures) / columns)
    whole = (gap + columns * (width + gap), gap + rows * (head + height + gap))
    page = PIL.Image.new("RGB", whole, PAPER)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        left, top = gap + column * (width + gap), gap + row * (head + height + gap)
        if titles is not None:
            title = line(titles[index], size, room=width)
            title.draw(page, left + (width - title.width) / 2, top, INK)
        fitted = _fit(picture, width, height)
        page.paste(fitted, (left + (width - fitted.width) // 2, top + head + (height - fitted.height) // 2))
    return page


def _fit(picture: PIL.Image.Image, width: int, height: int) -> PIL.Image.Image:
    factor = min(width / picture.width, height / picture.height)
    size = (max(round(picture.width * factor), 1), max(round(picture.height * factor), 1))
    return picture.convert("RGB").resize(size, PIL.Image.Resampling.LANCZOS) if size != picture.size else picture
