from __future__ import annotations

import torch

from closeup.evaluate.protocol import CLIPSELF, RegionProtocol


def test_clipself_keeps_boxes_of_8_squared_to_1024_squared_pixels() -> None:
    boxes = torch.tensor(
        [[0.0, 0, 8, 8], [0, 0, 8, 7.9], [5, 5, 5, 90], [10, 10, 1034, 1034], [0, 0, 1024, 1025], [2, 2, 66, 3]]
    )
    assert CLIPSELF.select(boxes).tolist() == [0, 3, 5]


def test_the_first_hundred_of_a_fit_size_count() -> None:
    boxes = torch.tensor([[0.0, 0, 1, 1], [0, 0, 20, 20]]).repeat(150, 1)
    assert CLIPSELF.select(boxes).tolist() == list(range(1, 200, 2))


def test_without_a_rule_every_region_counts_and_no_region_is_fine() -> None:
    assert RegionProtocol().select(torch.rand(5, 4)).tolist() == [0, 1, 2, 3, 4]
    assert RegionProtocol().select(torch.zeros(0, 4)).tolist() == []
