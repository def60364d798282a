from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closeup.errors import InputError
from closeup.viz.curve import _Scale, draw_curves
from closeup.viz.palette import name_colours

POINTS = [(0.0, 0.0), (0.5, 20.0), (4.0, 50.0)]


def pixels_of(curves: dict[str, list[tuple[float, float]]], name: str, **sizes: int) -> np.ndarray:
    """Return rows and columns of the pixels that have a curve's own colour, legend left out."""
    picture = np.asarray(draw_curves(curves, ["0", "0.5", "1"], x="lost", y="won", **sizes))[:540]
    return np.argwhere((picture == name_colours(list(curves))[list(curves).index(name)]).all(axis=2))


def test_a_curve_lies_where_its_numbers_say() -> None:
    found = pixels_of({"boxes": POINTS}, "boxes")
    (low, left), (high, right) = found[found[:, 1].argmin()], found[found[:, 1].argmax()]
    assert low > high
    assert right > left
    middle = pixels_of({"boxes": [(0.0, 0.0), (2.0, 25.0), (4.0, 50.0)]}, "boxes")
    centre = middle.mean(axis=0)
    assert centre == pytest.approx([(low + high) / 2, (left + right) / 2], abs=3)


def test_every_curve_is_drawn_in_its_colour() -> None:
    curves = {"boxes": POINTS, "masks": [(x, y / 2) for x, y in POINTS]}
    boxes, masks = pixels_of(curves, "boxes"), pixels_of(curves, "masks")
    assert len(boxes) > 100
    assert len(masks) > 100
    assert boxes[:, 0].min() < masks[:, 0].min()


def test_the_size_is_the_plots_and_the_legend_comes_below() -> None:
    picture = draw_curves({"boxes": POINTS}, ["a", "b", "c"], x="lost", y="won", width=400, height=300)
    assert picture.width == 400
    assert picture.height > 300


def test_one_point_and_equal_points_are_drawn() -> None:
    for points in ([(3.0, 3.0)], [(0.0, 0.0)] * 2, [(-1e-9, 1e9)]):
        draw_curves({"boxes": points}, ["a"] * len(points), x="lost", y="won", width=200, height=160)


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8))
def test_ticks_are_round_and_hold_every_value(values: list[float]) -> None:
    scale = _Scale.around(values)
    assert all(-1e-6 <= scale.share(value) <= 1 + 1e-6 for value in values)
    assert 2 <= len(scale.ticks()) <= 9
    digit = scale.step / 10 ** math.floor(math.log10(scale.step) + 1e-9)
    assert round(digit, 6) in (1, 2, 5)
    assert len(set(scale.names())) == len(scale.names())


@pytest.mark.parametrize(
    ("curves", "labels", "told"),
    [
        ({}, ["a"], "nothing to draw"),
        ({"boxes": []}, [], "nothing to draw"),
        ({"boxes": POINTS}, ["a"], "3 points? and there are 1|has 3 and there are 1"),
        ({"boxes": [(math.nan, 1.0)]}, ["a"], "not finite"),
    ],
)
def test_what_cannot_be_drawn_is_named(
    curves: dict[str, list[tuple[float, float]]], labels: list[str], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        draw_curves(curves, labels, x="lost", y="won")
