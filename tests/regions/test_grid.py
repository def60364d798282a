from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from closeup.errors import InputError
from closeup.geometry import areas
from closeup.regions import candidate_grids, grid_boxes


def test_cells_run_row_by_row() -> None:
    assert grid_boxes(2, 2, 10, 30).tolist() == [[0, 0, 15, 5], [15, 0, 30, 5], [0, 5, 15, 10], [15, 5, 30, 10]]


@given(rows=st.integers(1, 9), cols=st.integers(1, 9), height=st.integers(1, 3000), width=st.integers(1, 3000))
def test_cells_cover_the_image_without_overlap(rows: int, cols: int, height: int, width: int) -> None:
    boxes = grid_boxes(rows, cols, height, width)
    assert boxes.shape == (rows * cols, 4)
    assert boxes[-1, 2:].tolist() == [width, height]
    torch.testing.assert_close(
        areas(boxes), torch.full((rows * cols,), height * width / rows / cols), rtol=1e-3, atol=0
    )
    table = boxes.reshape(rows, cols, 4)
    assert torch.equal(table[:, 1:, 0], table[:, :-1, 2])
    assert torch.equal(table[1:, :, 1], table[:-1, :, 3])


def test_the_grids_of_clipself() -> None:
    grids = candidate_grids()
    # n from ceil(m / 2) to min(2 m, 6): 2, 4, 5, 5, 4 and 4 of them for m = 1 to 6.
    assert [sum(rows == m for rows, _ in grids) for m in range(1, 7)] == [2, 4, 5, 5, 4, 4]
    assert grids == [(m, n) for m in range(1, 7) for n in range(-(-m // 2), min(2 * m, 6) + 1)]
    assert sum(rows * cols for rows, cols in grids) == 361
    assert sum(rows * cols > 20 for rows, cols in grids) == 6
    assert candidate_grids(1) == [(1, 1)]


@pytest.mark.parametrize("arguments", [(0, 1, 9, 9), (1, -1, 9, 9), (1, 1, 0, 9), (1, 1, 9, -2)])
def test_nothing_to_divide(arguments: tuple[int, int, float, float]) -> None:
    with pytest.raises(InputError, match="must be positive"):
        grid_boxes(*arguments)
    with pytest.raises(InputError, match="max_split is 0"):
        candidate_grids(0)
