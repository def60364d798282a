from __future__ import annotations

import numpy as np
import PIL.Image
import pytest

from closeup.errors import InputError
from closeup.viz.legend import draw_legend, with_legend
from closeup.viz.palette import name_colours
from closeup.viz.sheet import draw_sheet


def flat(width: int, height: int, colour: tuple[int, int, int] = (10, 20, 30)) -> PIL.Image.Image:
    return PIL.Image.new("RGB", (width, height), colour)


def area(picture: PIL.Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.array(picture) == colour).all(axis=2).sum())


@pytest.mark.parametrize("columns", [None, 1, 2, 9])
def test_every_picture_is_on_the_sheet_whole(columns: int | None) -> None:
    shades = [(i, 90, 200) for i in range(5)]
    page = draw_sheet([flat(50, 40, shade) for shade in shades], ["t"] * 5, columns=columns)
    assert all(area(page, shade) == 50 * 40 for shade in shades)


def test_pictures_read_from_left_to_right_and_margins_are_equal() -> None:
    page = np.array(draw_sheet([flat(50, 40, (i, 90, 200)) for i in range(2)], columns=2))
    where = [np.nonzero((page == (i, 90, 200)).all(axis=2)) for i in range(2)]
    margins = [where[0][1].min(), where[1][1].min() - where[0][1].max() - 1, page.shape[1] - 1 - where[1][1].max()]
    assert len({int(margin) for margin in margins}) == 1
    assert int(where[0][0].min()) == page.shape[0] - 1 - int(where[0][0].max()) == int(margins[0])


def test_smaller_pictures_fit_their_cell_and_keep_their_aspect() -> None:
    page = draw_sheet([flat(100, 80), flat(10, 20, (200, 0, 0))], columns=2)
    assert area(page, (200, 0, 0)) == 40 * 80


def test_a_long_or_strange_title_stays_over_its_picture() -> None:
    page = np.array(draw_sheet([flat(60, 40)], ["größer трава " * 20]))
    used = np.nonzero((page != 255).any(axis=(0, 2)))[0]
    inside = np.nonzero((page == (10, 20, 30)).all(axis=2).any(axis=0))[0]
    assert inside.min() - 1 <= used.min()
    assert used.max() <= inside.max() + 1


def test_one_pixel_beside_a_large_picture() -> None:
    assert draw_sheet([flat(1, 1), flat(300, 1)]).width > 600


def test_unusable_input_is_refused_with_the_value() -> None:
    with pytest.raises(InputError, match="at least one"):
        draw_sheet([])
    with pytest.raises(InputError, match="1 and 2 titles"):
        draw_sheet([flat(2, 2)], ["a", "b"])
    with pytest.raises(InputError, match="not 0"):
        draw_sheet([flat(2, 2)], columns=0)


@pytest.mark.parametrize("width", [64, 480, 2000])
def test_a_legend_has_a_swatch_for_each_name_and_the_width_asked_for(width: int) -> None:
    names = ["sky", "grass", "трава", "a name that is a good deal longer than the others"]
    strip = draw_legend(names, width)
    assert strip.width == width
    assert all(area(strip, colour) > 0.7 * 81 for colour in name_colours(names))
    assert (np.array(strip)[-2:] == 255).all()
    assert (np.array(strip)[:, -2:] == 255).all()


def test_many_names_take_several_rows_and_no_names_take_none() -> None:
    assert draw_legend([], 100).size == (100, 0)
    assert draw_legend([f"word {i}" for i in range(150)], 480).height > draw_legend(["word"], 480).height * 5
    assert with_legend(flat(30, 20), []).tobytes() == flat(30, 20).tobytes()


def test_the_legend_stands_below_the_picture() -> None:
    whole = with_legend(flat(300, 200), ["sky"], colours=[(1, 2, 250)])
    assert whole.width == 300
    assert np.array_equal(np.array(whole)[:200], np.array(flat(300, 200)))
    assert area(whole, (1, 2, 250)) > 50
