from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from closeup.errors import InputError
from closeup.predict.pixels import best_words, to_pixels

SIDES = st.integers(1, 9)


def some_cells(words: int, rows: int, cols: int, seed: int) -> Tensor:
    return torch.randn(words, rows, cols, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), SIDES, SIDES, st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000))
def test_to_pixels_is_pytorchs_bilinear_interpolation(
    words: int, rows: int, cols: int, height: int, width: int, seed: int
) -> None:
    cells = some_cells(words, rows, cols, seed)
    expected = F.interpolate(cells[None], size=(height, width), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(to_pixels(cells, (height, width)), expected, atol=2e-5, rtol=0)


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000))
def test_nearest_gives_every_pixel_the_cell_that_holds_its_centre(
    rows: int, cols: int, height: int, width: int, seed: int
) -> None:
    cells = some_cells(2, rows, cols, seed)
    expected = F.interpolate(cells[None], size=(height, width), mode="nearest-exact")[0]
    torch.testing.assert_close(to_pixels(cells, (height, width), mode="nearest"), expected, atol=0, rtol=0)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), SIDES, SIDES, st.integers(1, 40), st.integers(1, 40), st.integers(1, 300), st.integers(0, 99))
def test_bands_find_what_all_scores_at_once_show(
    words: int, rows: int, cols: int, height: int, width: int, budget: int, seed: int
) -> None:
    cells = some_cells(words, rows, cols, seed)
    full = to_pixels(cells, (height, width))
    found = best_words(cells, (height, width), budget=budget)
    torch.testing.assert_close(found.scores, full.amax(dim=0), atol=1e-6, rtol=0)
    # At a tie up to rounding either word is right: the score of the label found is the best one.
    own = full.gather(0, found.labels[None])[0]
    torch.testing.assert_close(own, full.amax(dim=0), atol=1e-6, rtol=0)
    assert (found.labels == full.argmax(dim=0)).float().mean() > 0.97
    assert found.probabilities is None


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), SIDES, SIDES, st.integers(1, 30), st.integers(1, 300), st.integers(0, 99))
def test_probabilities_are_the_softmax_over_all_words(
    words: int, rows: int, cols: int, side: int, budget: int, seed: int
) -> None:
    cells = some_cells(words, rows, cols, seed)
    expected = (to_pixels(cells, (side, side + 3)) * 20).softmax(dim=0).amax(dim=0)
    found = best_words(cells, (side, side + 3), scale=20, budget=budget).probabilities
    assert found is not None
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_the_size_of_the_bands_changes_no_label_and_no_score() -> None:
    cells = some_cells(5, 6, 7, 0)
    for scale in (None, 30.0):
        one = best_words(cells, (50, 61), scale=scale, budget=1)
        other = best_words(cells, (50, 61), scale=scale, budget=10**9)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.scores, other.scores)


def test_ties_go_to_the_first_word() -> None:
    cells = torch.zeros(3, 2, 2)
    assert not best_words(cells, (8, 8)).labels.any()


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(InputError, match="'bicubic'"):
        best_words(torch.zeros(1, 2, 2), (4, 4), mode="bicubic")
