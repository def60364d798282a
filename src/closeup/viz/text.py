"""Text on pictures: a font for every script, lines cut to a width, and labels that stay inside the canvas."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias, cast

import PIL.Image
from PIL import ImageDraw, ImageFont

from closeup.viz.palette import Colour, ink

Font: TypeAlias = ImageFont.FreeTypeFont

SMOOTH = 4
"""Rounded corners are drawn this many times larger and shrunk, so that their edges are smooth."""

# Pillow's own font knows ASCII only; these are looked up in the system's font folders, in this order.
_FALLBACKS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "Arial Unicode.ttf",
    "NotoSansCJK-Regular.ttc",
    "PingFang.ttc",
    "msyh.ttc",
    "NotoSansDevanagari-Regular.ttf",
    "NotoSansArabic-Regular.ttf",
    "arial.ttf",
)


def font_size(width: int, height: int) -> int:
    """Return the size of text, in pixels, that suits a picture: readable when small, not loud when large."""
    return max(10, round(0.035 * math.sqrt(width * height)))


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text with the font that can show it; width and height in pixels, ``height`` equal for all lines."""

    text: str
    font: Font
    width: int
    height: int

    def draw(self, picture: PIL.Image.Image, left: float, top: float, colour: Colour) -> None:
        """Draw the line with its top left corner at ``left, top``, centred on the height of a capital letter."""
        base = round(top + self.height / 2 + _drop(self.font))
        ImageDraw.Draw(picture).text((left, base), self.text, fill=colour, font=self.font, anchor="ls")


def line(text: str, size: int, room: float | None = None) -> Line:
    """Return text as one line, white space folded, cut with an ellipsis where it is wider than ``room`` pixels."""
    text = " ".join(text.split())
    font = _font_for(text, size)
    if not _covers(font, text):
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    if room is not None and font.getlength(text) > room:
        longest = next((n for n in range(len(text), 0, -1) if font.getlength(text[:n].rstrip() + "…") <= room), 0)
        text = text[:longest].rstrip() + "…" if longest else ""
    return Line(text, font, int(font.getlength(text) + 0.999), size)


@dataclass(frozen=True, slots=True)
class Chip:
    """A line of text on a coloured plate with rounded corners; the plate is ``width`` by ``height`` pixels."""

    line: Line
    colour: Colour

    @property
    def pad(self) -> int:
        """The space around the text in pixels."""
        return max(2, round(self.line.height * 0.35))

    @property
    def width(self) -> int:
        """The width of the plate in pixels."""
        return self.line.width + 2 * self.pad

    @property
    def height(self) -> int:
        """The height of the plate in pixels."""
        return self.line.height + round(1.4 * self.pad)

    def draw(self, picture: PIL.Image.Image, left: int, top: int) -> None:
        """Paste the plate with its top left corner at ``left, top``."""
        mask = rounded(self.width, self.height, radius=self.height * 0.22)
        picture.paste(self.colour, (left, top), mask)
        self.line.draw(picture, left + self.pad, top + 0.7 * self.pad, ink(self.colour))


def rounded(width: int, height: int, radius: float) -> PIL.Image.Image:
    """Return the grey mask of a rectangle with smooth rounded corners."""
    large = PIL.Image.new("L", (width * SMOOTH, height * SMOOTH), 0)
    corner = (0, 0, width * SMOOTH - 1, height * SMOOTH - 1)
    ImageDraw.Draw(large).rounded_rectangle(corner, radius=radius * SMOOTH, fill=255)
    return large.resize((width, height), PIL.Image.Resampling.BOX)


Rectangle: TypeAlias = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the picture, half-open."""


def place(
    size: tuple[int, int], wishes: Sequence[tuple[float, float]], canvas: tuple[int, int], taken: Sequence[Rectangle]
) -> Rectangle:
    """Return where a plate of ``size`` goes: the first wish that is free, else the one that covers the least.

    ``size`` and ``canvas`` are ``(width, height)``, wishes are top left corners; each is first moved
    inside the canvas, so the plate is never cut where the canvas has room for it.
    """
    width, height = min(size[0], canvas[0]), min(size[1], canvas[1])
    spots = [(round(min(max(x, 0), canvas[0] - width)), round(min(max(y, 0), canvas[1] - height))) for x, y in wishes]
    rectangles = [(x, y, x + width, y + height) for x, y in spots]
    return min(rectangles, key=lambda spot: sum(_shared(spot, other) for other in taken))


def _shared(one: Rectangle, other: Rectangle) -> int:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)


@lru_cache(maxsize=64)
def _default(size: int) -> Font:
    return cast(Font, ImageFont.load_default(size))


@lru_cache(maxsize=64)
def _installed(name: str, size: int) -> Font | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


def _font_for(text: str, size: int) -> Font:
    default = _default(size)
    if _covers(default, text):
        return default
    found = (_installed(name, size) for name in _FALLBACKS)
    return next((font for font in found if font is not None and _covers(font, text)), default)


def _covers(font: Font, text: str) -> bool:
    return all(_has(font, character) for character in set(text) if character != " ")


@lru_cache(maxsize=4096)
def _has(font: Font, character: str) -> bool:
    mask, missing = font.getmask(character), font.getmask("\U0010ffff")
    return mask.size != missing.size or bytes(mask) != bytes(missing)


@lru_cache(maxsize=64)
def _drop(font: Font) -> float:
    """Half the height of a capital: how far the base line lies below the middle of a line."""
    _, top, _, bottom = font.getbbox("H", anchor="ls")
    return (bottom - top) / 2
