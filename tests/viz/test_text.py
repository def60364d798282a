from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closeup.viz.text import Chip, font_size, line, place, rounded


@pytest.mark.parametrize("text", ["dog", "größer", "трава", "犬", "🐶", "e\u0301", "", " \n\t ", "a\nb", "…"])
@pytest.mark.parametrize("size", [1, 10, 60])
def test_any_text_becomes_one_line_within_its_room(text: str, size: int) -> None:
    assert line(text, size, room=3.5 * size).width <= 3.5 * size + 1
    picture = PIL.Image.new("RGB", (400, 100))
    line(text, size).draw(picture, 5, 5, (255, 255, 255))
    assert "\n" not in line(text, size).text


@given(st.text(max_size=30), st.integers(0, 200))
@settings(max_examples=50, deadline=None)
def test_a_line_never_exceeds_its_room(text: str, room: int) -> None:
    assert line(text, 12, room=room).width <= room


def test_a_long_text_ends_with_an_ellipsis_and_a_short_one_is_whole() -> None:
    cut = line("a rather long name", 12, room=60)
    assert cut.text.endswith("…")
    assert "a rather long name".startswith(cut.text[:-1])
    assert line("a rather long name", 12, room=500).text == "a rather long name"
    assert line("long", 12, room=1).text == ""


def test_a_text_that_the_built_in_font_lacks_is_shown_with_some_other_glyph() -> None:
    accented = line("é", 20)
    plain = line("e", 20)
    assert accented.font.getmask(accented.text).getbbox() is not None
    missing = accented.font.getmask("\U0010ffff")
    assert bytes(accented.font.getmask(accented.text)) != bytes(missing)
    assert plain.font.getname()[0] == "Aileron"


def test_text_is_centred_on_the_height_of_capitals() -> None:
    picture = PIL.Image.new("RGB", (60, 40))
    line("H", 30).draw(picture, 5, 5, (255, 255, 255))
    rows = np.nonzero(np.array(picture).any(axis=(1, 2)))[0]
    assert abs((rows[0] + rows[-1]) / 2 - 19.5) <= 1.0


def test_a_chip_paints_its_plate_and_nothing_else() -> None:
    picture = PIL.Image.new("RGB", (200, 60))
    chip = Chip(line("yellow", 20), (240, 228, 66))
    chip.draw(picture, 10, 10)
    pixels = np.array(picture)
    left, top, right, bottom = picture.getbbox() or (0, 0, 0, 0)
    assert (left, top, right, bottom) == (10, 10, 10 + chip.width, 10 + chip.height)
    assert tuple(pixels[10 + chip.height // 2, 12]) == (240, 228, 66)
    assert (pixels == 0).all(axis=2)[10 : 10 + chip.height, 10 : 10 + chip.width].any()


def test_rounded_corners_are_smooth() -> None:
    mask = np.array(rounded(20, 10, 4))
    assert mask.shape == (10, 20)
    assert mask[5, 10] == 255
    assert mask[0, 0] < 64
    assert len(np.unique(mask)) > 2


@given(
    st.tuples(st.integers(1, 50), st.integers(1, 50)),
    st.lists(st.tuples(st.floats(-99, 99), st.floats(-99, 99)), min_size=1, max_size=5),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
)
@settings(max_examples=40, deadline=None)
def test_a_plate_lies_inside_the_canvas(
    size: tuple[int, int], wishes: list[tuple[float, float]], canvas: tuple[int, int]
) -> None:
    left, top, right, bottom = place(size, wishes, canvas, [])
    assert 0 <= left <= right <= canvas[0]
    assert 0 <= top <= bottom <= canvas[1]


def test_the_first_free_wish_is_taken_else_the_one_that_covers_least() -> None:
    wishes = [(0, 0), (20, 0), (40, 0)]
    assert place((10, 10), wishes, (100, 100), [])[:2] == (0, 0)
    assert place((10, 10), wishes, (100, 100), [(5, 5, 15, 15)])[:2] == (20, 0)
    taken = [(0, 0, 9, 10), (22, 0, 60, 10)]
    assert place((10, 10), wishes, (100, 100), taken)[:2] == (20, 0)


def test_text_grows_with_the_picture_but_stays_readable() -> None:
    assert font_size(64, 64) == 10
    assert font_size(480, 360) < font_size(2000, 1500)
