"""Random boxes: inside the picture, of every order of size, and nowhere more than elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from closeup.errors import InputError
from closeup.regions import random_boxes
from closeup.regions.random_boxes import LONGEST, SMALLEST


def test_boxes_have_the_sizes_ratios_and_places_that_are_promised() -> None:
    boxes = random_boxes(20_000, np.random.default_rng(0)).double()
    width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(dim=1)
    assert (boxes >= 0).all()
    assert (boxes <= 1).all()
    area, ratio = width * height, width / height
    assert area.min() >= SMALLEST - 1e-5
    inner = area < 0.4  # larger ones may be cut to the picture's sides
    assert ratio[inner].min() >= 1 / LONGEST - 1e-3
    assert ratio[inner].max() <= LONGEST + 1e-3
    # Uniform in the logarithm: as many below the geometric mean of both ends as above.
    assert (area < SMALLEST**0.5).double().mean() == pytest.approx(0.5, abs=0.02)
    assert ((boxes[:, :2] + boxes[:, 2:]) / 2).mean(dim=0).tolist() == pytest.approx([0.5, 0.5], abs=0.01)
    free = (boxes[:, 0] / (1 - width))[width < 0.9]
    assert torch.histc(free, 4, 0, 1).div(len(free)).tolist() == pytest.approx([0.25] * 4, abs=0.02)


def test_the_same_generator_draws_the_same_boxes() -> None:
    one, other = (random_boxes(5, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(one, other)
    assert random_boxes(0, np.random.default_rng(0)).shape == (0, 4)
    with pytest.raises(InputError, match="got -1"):
        random_boxes(-1, np.random.default_rng(0))
