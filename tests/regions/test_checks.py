from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from closeup.errors import InputError
from closeup.regions import as_boxes, as_masks, check_boxes, check_masks

BOX = [1.0, 2.0, 3.0, 4.0]
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "value",
    [[BOX], [tuple(BOX)], np.array([BOX]), np.array([BOX], dtype=">f4"), np.array([BOX]).astype(np.uint16),
     torch.tensor([BOX]), torch.tensor([BOX]).half(), [torch.tensor(BOX)], [np.array(BOX)]],
)  # fmt: skip
def test_boxes_of_any_kind(value: object) -> None:
    boxes = as_boxes(value)
    assert boxes.dtype in (torch.float32, torch.float64)
    assert boxes.tolist() == [BOX]


@pytest.mark.parametrize("value", [[], np.zeros((0, 4)), torch.zeros(0, 4), torch.zeros(0)])
def test_no_boxes(value: object) -> None:
    assert as_boxes(value).shape == (0, 4)
    check_boxes(as_boxes(value), 10, 10)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (BOX, r"shape \(4,\).*\[\[x0, y0, x1, y1\]\]"),
        ([[1, 2, 3]], r"shape \(1, 3\): give \(N, 4\)"),
        ([BOX, [1, 2]], r"boxes of the image cannot be read \(rows of different lengths\): give rows"),
        ("boxes.json", "cannot be read"),
        (
            [["a", 0, 3, 4]],
            r"boxes of the image cannot be read \(it holds text\): give rows of x0, y0, x1, y1",
        ),
        (None, r"cannot be read \(not everything in it is a number\)"),
        (np.zeros((2, 4), dtype=bool), "type torch.bool"),
        (np.zeros((1, 2, 4)), r"shape \(1, 2, 4\)"),
    ],
)
def test_what_is_not_boxes(value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_boxes(value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0.0, 0.0, NAN, 5.0], r"box 1 of cat.jpg is not finite: \(0, 0, nan, 5\)"),
        ([0.0, 0.0, INF, 5.0], "box 1 of cat.jpg is not finite"),
        ([4.0, 4.0, 4.0, 9.0], r"box 1 of cat.jpg has no area: \(4, 4, 4, 9\); x1 and y1 must be larger"),
        ([9.0, 9.0, 4.0, 2.0], "box 1 of cat.jpg has no area"),
        ([-9.0, 2.0, 0.0, 9.0], "box 1 of cat.jpg lies outside the image.*30 wide and 20 high"),
        ([5.0, 20.0, 9.0, 25.0], "box 1 of cat.jpg lies outside the image"),
    ],
)
def test_the_wrong_box_is_named(row: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_boxes(torch.tensor([[-1.0, -1.0, 40.0, 40.0], row]), 20, 30, "cat.jpg")


def test_xywh_is_suspected() -> None:
    boxes = torch.tensor([[20.0, 10.0, 5.0, 8.0], [2.0, 3.0, 20.0, 15.0]])
    with pytest.raises(InputError, match="look like x, y, width, height: closeup"):
        check_boxes(boxes, 20, 30)
    with pytest.raises(InputError, match=r"box 0 .* \(and 1 more\); x1 and y1 must be larger"):
        check_boxes(torch.tensor([[50.0, 40.0, 5.0, 8.0], [9.0, 3.0, 9.0, 5.0]]), 20, 30)


def test_wrong_shape_of_boxes() -> None:
    with pytest.raises(InputError, match=r"shape \(2, 5\)"):
        check_boxes(torch.zeros(2, 5), 20, 30)


@given(corner=st.tuples(st.floats(0, 28), st.floats(0, 18)), side=st.tuples(st.floats(0.01, 99), st.floats(0.01, 99)))
def test_good_boxes_pass(corner: tuple[float, float], side: tuple[float, float]) -> None:
    check_boxes(torch.tensor([[*corner, corner[0] + side[0], corner[1] + side[1]]]), 20, 30)


PLANE = np.array([[True, False, True], [False, False, True]])


@pytest.mark.parametrize(
    "value",
    [PLANE[None], [PLANE], [PLANE.tolist()], torch.from_numpy(PLANE)[None], PLANE[None].astype(np.uint8),
     PLANE[None].astype(np.uint8) * 255, PLANE[None].astype(np.int64), PLANE[None].astype(np.uint16), (PLANE,),
     [PIL.Image.fromarray(PLANE)], [torch.from_numpy(PLANE)]],
)  # fmt: skip
def test_masks_of_any_kind(value: object) -> None:
    masks = as_masks(value)
    assert masks.dtype == torch.bool
    assert masks.tolist() == PLANE[None].tolist()
    check_masks(masks, 2, 3)


def test_no_masks() -> None:
    assert len(as_masks([])) == 0
    check_masks(as_masks([]), 20, 30)
    assert as_masks(np.zeros((0, 4, 5), dtype=np.uint8)).shape == (0, 4, 5)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (PLANE, r"shape \(2, 3\).*mask\[None\]"),
        (PLANE[None] * 0.7, "type torch.float64: give bool"),
        (np.array([[[0, 1]], [[2, 7]]]), r"mask 1 of the image holds the values \[2, 7\].*not a map of labels"),
        ([PLANE, PLANE.T], r"mask 1 of the image is \(3, 2\) and mask 0 is \(2, 3\)"),
        ("mask.png", "cannot be read"),
        ([None], "mask 0 of the image cannot be read"),
    ],
)
def test_what_is_not_masks(value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_masks(value)


def test_the_wrong_mask_is_named() -> None:
    masks = torch.ones(4, 20, 30, dtype=torch.bool)
    check_masks(masks, 20, 30)
    masks[1:3] = False
    with pytest.raises(InputError, match=r"mask 1 of cat\.jpg is empty, and so are 1 more"):
        check_masks(masks, 20, 30, "cat.jpg")
    with pytest.raises(InputError, match=r"\(20, 30\) and the image is \(30, 20\).*exchanged"):
        check_masks(masks, 30, 20)
    with pytest.raises(InputError, match=r"type torch.uint8"):
        check_masks(masks.byte(), 20, 30)
    with pytest.raises(InputError, match=r"shape \(20, 30\)"):
        check_masks(masks[0], 20, 30)
