from __future__ import annotations

import math

import numpy as np
import PIL.Image
import pytest
import torch

from closeup.errors import InputError
from closeup.viz.heatmap import draw_heatmap, heat_colours

GREY = PIL.Image.new("RGB", (400, 300), (100, 100, 100))


def test_lightness_rises_with_the_value() -> None:
    light = heat_colours(torch.linspace(0, 1, 200)) @ torch.tensor([0.299, 0.587, 0.114])
    assert bool((light.diff() > 0).all())


def test_colours_are_those_of_inferno() -> None:
    expected = {0.0: (0, 0, 4), 0.5: (188, 55, 84), 1.0: (252, 255, 164)}
    for value, colour in expected.items():
        assert (heat_colours(torch.tensor([value]))[0] * 255).round().int().tolist() == list(colour)
    assert torch.equal(heat_colours(torch.tensor([-3.0, 9.0])), heat_colours(torch.tensor([0.0, 1.0])))


def test_known_pixels_of_a_map_at_the_images_size() -> None:
    heat = torch.zeros(300, 400)
    heat[:, 200:] = 2.0
    drawn = np.array(draw_heatmap(GREY, heat, alpha=0.5, bar=False)).astype(int)
    for x, colour in ((50, (0, 0, 4)), (350, (252, 255, 164))):
        assert np.abs(drawn[150, x] - (np.array(colour) + 100) / 2).max() <= 1


def test_the_bar_widens_the_picture_and_leaves_the_photograph_alone() -> None:
    heat = torch.rand(7, 9, generator=torch.Generator().manual_seed(0))
    bare, barred = draw_heatmap(GREY, heat, bar=False), draw_heatmap(GREY, heat)
    assert bare.size == (400, 300)
    assert barred.height == 300
    assert barred.width > 400
    assert np.array_equal(np.array(barred)[:, :400], np.array(bare))
    assert (np.array(barred)[:, -3:] == 255).all()


def test_values_outside_the_scale_are_clipped() -> None:
    heat = torch.tensor([[-5.0, 5.0]])
    assert draw_heatmap(GREY, heat, low=0, high=1).tobytes() != draw_heatmap(GREY, heat).tobytes()
    flat = draw_heatmap(GREY, torch.full((1, 1), 7.0), low=0, high=1, bar=False)
    top = draw_heatmap(GREY, torch.full((1, 1), 1.0), low=0, high=1, bar=False)
    assert flat.tobytes() == top.tobytes()


@pytest.mark.parametrize("value", [0.0, -1e-9, 3e8, math.nan, math.inf])
@pytest.mark.parametrize("shape", [(1, 1), (3, 50)])
def test_a_flat_map_or_one_without_numbers_can_be_drawn(value: float, shape: tuple[int, int]) -> None:
    assert draw_heatmap(GREY, torch.full(shape, value)).height == 300


def test_cells_that_are_not_finite_stay_grey_and_do_not_spread() -> None:
    heat = torch.ones(3, 4)
    heat[:, 0] = math.nan
    drawn = np.array(draw_heatmap(GREY, heat, low=0, high=1, alpha=1.0, bar=False))
    assert tuple(drawn[150, 10]) == (100, 100, 100)
    assert tuple(drawn[150, 130]) == tuple(drawn[150, 390]) == (252, 255, 164)


def test_small_images_and_half_precision() -> None:
    small = PIL.Image.new("RGB", (64, 48))
    assert draw_heatmap(small, torch.rand(4, 4).half()).height == 288
    assert draw_heatmap(small, torch.rand(4, 4), min_side=0).height == 48


def test_unusable_input_is_refused_with_the_value() -> None:
    with pytest.raises(InputError, match=r"empty, its shape is \(0, 3\)"):
        draw_heatmap(GREY, torch.zeros(0, 3))
    with pytest.raises(InputError, match="low=2 lies above high=1"):
        draw_heatmap(GREY, torch.zeros(2, 3), low=2, high=1)
