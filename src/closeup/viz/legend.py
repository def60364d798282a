"""Which colour stands for which name: a strip of plates below a picture."""

from __future__ import annotations

from collections.abc import Sequence

import PIL.Image

from closeup.viz.palette import Colour, name_colours
from closeup.viz.text import font_size, line, rounded

PAPER: Colour = (255, 255, 255)
INK: Colour = (32, 32, 36)


def draw_legend(
    names: Sequence[str], width: int, *, colours: Sequence[Colour] | None = None, size: int | None = None
) -> PIL.Image.Image:
    """Return a picture, ``width`` pixels wide and as high as it needs to be, of names beside their colours.

    ``colours`` defaults to the palette's, ``size`` (of the text, in pixels) to what suits the width.
    No names give a picture of height 0.
    """
    size = size or font_size(width, width * 3 // 4)
    gap, swatch, pitch = round(size * 0.9), round(size * 0.95), round(size * 1.7)
    room = max(width - 2 * gap - swatch - gap // 2, 0)
    lines = [line(name, size, room) for name in names]
    spots, left, top = [], gap, gap
    for text in lines:
        needed = swatch + gap // 2 + text.width
        if left > gap and left + needed + gap > width:
            left, top = gap, top + pitch
        spots.append((left, top))
        left += needed + round(gap * 1.4)
    picture = PIL.Image.new("RGB", (width, top + size + gap if names else 0), PAPER)
    mask = rounded(swatch, swatch, radius=swatch * 0.25)
    for text, (x, y), colour in zip(lines, spots, colours or name_colours(names), strict=True):
        picture.paste(colour, (x, y + (size - swatch) // 2), mask)
        text.draw(picture, x + swatch + gap // 2, y, INK)
    return picture


def with_legend(
    picture: PIL.Image.Image, names: Sequence[str], *, colours: Sequence[Colour] | None = None
) -> PIL.Image.Image:
    """Return a picture with the legend of some names below it."""
    strip = draw_legend(names, picture.width, colours=colours, size=font_size(*picture.size))
    whole = PIL.Image.new("RGB", (picture.width, picture.height + strip.height), PAPER)
    whole.paste(picture, (0, 0))
    whole.paste(strip, (0, picture.height))
    return whole
