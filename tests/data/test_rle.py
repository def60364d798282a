from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from closeup.data.rle import decode_mask, encode_mask, uncompress
from closeup.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 90), st.integers(1, 90), st.sampled_from([0.0, 0.01, 0.5, 0.99, 1.0]))
def test_masks_come_back_and_agree_with_pycocotools(seed: int, height: int, width: int, density: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < density
    coded = encode_mask(mask)
    assert json.loads(json.dumps(coded)) == coded
    assert np.array_equal(decode_mask(coded, height, width, "here"), mask)
    assert np.array_equal(coco_mask.decode(coded).astype(bool), mask)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 60), st.floats(-5, 45)), min_size=3, max_size=9))
def test_polygons_are_drawn_as_pycocotools_draws_them(points: list[tuple[float, float]]) -> None:
    polygon = [value for point in points for value in point]
    theirs = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([polygon], 40, 50)))
    assert np.array_equal(decode_mask([polygon], 40, 50, "here"), theirs.astype(bool))


def test_long_runs_and_falling_differences() -> None:
    mask = np.zeros((3000, 500), dtype=bool)
    mask[:, 200:300] = True
    mask[5, 400] = mask[2999, 499] = True
    assert np.array_equal(decode_mask(encode_mask(mask), 3000, 500, "here"), mask)


@pytest.mark.parametrize("text", ["", "ab\ncd", "é", "o"])
def test_strings_outside_of_the_code_are_refused(text: str) -> None:
    with pytest.raises(DataError, match="here: 'counts' is no compressed run length code"):
        uncompress(text, "here")
