from __future__ import annotations

import math

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from closeup.errors import ConfigError, InputError
from closeup.regions import FG_CLIP, CropPolicy, crop_regions
from closeup.regions.crops import ROUNDING, crop_corners


@pytest.fixture
def image() -> PIL.Image.Image:
    return PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 45, 3), dtype=np.uint8))


def same(one: PIL.Image.Image, other: PIL.Image.Image | np.ndarray) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


def test_a_crop_is_the_box(image: PIL.Image.Image) -> None:
    crops = crop_regions(image, torch.tensor([[3.0, 4.0, 13.0, 30.0], [0.0, 0.0, 45.0, 37.0]]))
    assert same(crops[0], np.asarray(image)[4:30, 3:13])
    assert same(crops[1], image)


@given(
    start=st.tuples(st.floats(0, 30), st.floats(0, 25)),
    side=st.tuples(st.floats(2, 30), st.floats(2, 30)),
    factor=st.floats(1, 3),
)
def test_corners_are_those_of_pil(start: tuple[float, float], side: tuple[float, float], factor: float) -> None:
    """As CLIPSelf does: enlarge about the centre, clip, let PIL round."""
    image = PIL.Image.fromarray(np.arange(37 * 45 * 3, dtype=np.int64).astype(np.uint8).reshape(37, 45, 3))
    x, y, width, height = *start, *side
    across, down = x + width / 2, y + height / 2
    clipped = (
        max(across - width * factor / 2, 0),
        max(down - height * factor / 2, 0),
        min(across + width * factor / 2, 45),
        min(down + height * factor / 2, 37),
    )
    if any(abs(value % 1 - 0.5) < 1e-9 for value in clipped):
        return
    boxes = torch.tensor([[x, y, x + width, y + height]], dtype=torch.float64)
    assert same(crop_regions(image, boxes, policy=CropPolicy(enlarge=factor))[0], image.crop(clipped))


def test_halves_go_to_the_even_pixel() -> None:
    assert crop_corners(torch.tensor([[0.5, 1.5, 2.5, 3.5]]), 37, 45) == [(0, 2, 2, 4)]


def test_a_crop_always_has_a_pixel(image: PIL.Image.Image) -> None:
    boxes = torch.tensor([[10.2, 10.2, 10.4, 10.4], [44.9, 36.9, 45.0, 37.0], [-9.0, 50.0, -5.0, 60.0]])
    assert crop_corners(boxes, 37, 45) == [(10, 10, 11, 11), (44, 36, 45, 37), (0, 36, 1, 37)]
    assert [crop.size for crop in crop_regions(image, boxes)] == [(1, 1)] * 3


@pytest.mark.parametrize(("fill", "level"), [("mean", (123, 117, 104)), ("zero", (0, 0, 0))])
def test_masked_out_pixels_are_filled(image: PIL.Image.Image, fill: str, level: tuple[int, int, int]) -> None:
    masks = torch.zeros(1, 37, 45, dtype=torch.bool)
    masks[0, 5:9, 7:20] = True
    masks[0, 6, 8] = False
    crop = np.asarray(crop_regions(image, None, masks, CropPolicy(masked=True, fill=fill))[0])  # type: ignore[arg-type]
    expected = np.array(image)[5:9, 7:20]
    expected[1, 1] = level
    assert np.array_equal(crop, expected)


def test_the_context_of_a_masked_crop_is_fill(image: PIL.Image.Image) -> None:
    masks = torch.zeros(1, 37, 45, dtype=torch.bool)
    masks[0, 10:20, 10:20] = True
    policy = CropPolicy(enlarge=1.4, fill="zero", masked=True)
    crop = np.asarray(crop_regions(image, torch.tensor([[10.0, 10.0, 20.0, 20.0]]), masks, policy)[0])
    assert crop.shape == (14, 14, 3)
    assert np.array_equal(crop[2:12, 2:12], np.asarray(image)[10:20, 10:20])
    assert crop.astype(int).sum() == crop[2:12, 2:12].astype(int).sum()


def test_masks_do_nothing_to_an_unmasked_crop(image: PIL.Image.Image) -> None:
    masks = torch.zeros(1, 37, 45, dtype=torch.bool)
    masks[0, 3, 5] = masks[0, 9, 8] = True
    assert same(crop_regions(image, masks=masks)[0], np.asarray(image)[3:10, 5:9])


def test_another_mean(image: PIL.Image.Image) -> None:
    masks = torch.zeros(1, 37, 45, dtype=torch.bool)
    crop = crop_regions(image, torch.tensor([[0.0, 0.0, 1.0, 1.0]]), masks, CropPolicy(masked=True), mean=(0.5, 0, 1))
    assert crop[0].getpixel((0, 0)) == (128, 0, 255)


def test_nothing_to_crop(image: PIL.Image.Image) -> None:
    assert crop_regions(image, torch.zeros(0, 4)) == []
    assert crop_regions(image, masks=torch.zeros(0, 37, 45, dtype=torch.bool), policy=CropPolicy(masked=True)) == []


def test_what_is_missing_is_named(image: PIL.Image.Image) -> None:
    box, masked = torch.tensor([[0.0, 0.0, 9.0, 9.0]]), CropPolicy(masked=True)
    with pytest.raises(InputError, match="neither boxes nor masks"):
        crop_regions(image)
    with pytest.raises(InputError, match="got none for 1"):
        crop_regions(image, box, policy=masked)
    with pytest.raises(InputError, match="got 2 for 1"):
        crop_regions(image, box, torch.ones(2, 37, 45, dtype=torch.bool), masked)
    with pytest.raises(InputError, match=r"\(45, 37\) on an image of \(37, 45\)"):
        crop_regions(image, box, torch.ones(1, 45, 37, dtype=torch.bool), masked)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_wrong_enlarge(value: float) -> None:
    with pytest.raises(ConfigError, match=f"enlarge is {value!r}: give a positive factor"):
        CropPolicy(enlarge=value)


@given(
    start=st.tuples(st.floats(0, 30), st.floats(0, 25)),
    side=st.tuples(st.floats(2, 30), st.floats(2, 30)),
    factor=st.floats(1, 3),
)
def test_fg_clip_cuts_every_pixel_that_is_touched(
    start: tuple[float, float], side: tuple[float, float], factor: float
) -> None:
    """As its code does: scale width and height, keep the centre, clip, floor the minima and ceil the maxima."""
    x, y, width, height = *start, *side
    left, top = x - (factor * width - width) / 2, y - (factor * height - height) / 2
    right, bottom = left + factor * width, top + factor * height
    if any(abs(value - round(value)) < 1e-9 for value in (left, top, right, bottom)):
        return
    boxes = torch.tensor([[x, y, x + width, y + height]], dtype=torch.float64)
    expected = max(math.floor(left), 0), max(math.floor(top), 0), min(math.ceil(right), 45), min(math.ceil(bottom), 37)
    assert crop_corners(boxes, 37, 45, factor, FG_CLIP.corners) == [expected]


def test_whole_boxes_are_cut_as_they_are_by_every_rule() -> None:
    boxes = torch.tensor([[3.0, 4.0, 13.0, 30.0]])
    assert {crop_corners(boxes, 37, 45, 1.0, rule)[0] for rule in ROUNDING} == {(3, 4, 13, 30)}
