from __future__ import annotations

from collections import deque

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.morphology import opening
from torch import Tensor

from closeup.regions.parts import connected_parts, opened


def flooded(mask: Tensor) -> list[Tensor]:
    """Return the parts of one mask, each filled from its first pixel over the sides of pixels."""
    left, parts = mask.clone(), []
    for start in mask.nonzero().tolist():
        if not left[tuple(start)]:
            continue
        part, waiting = torch.zeros_like(mask), deque([start])
        left[tuple(start)] = False
        while waiting:
            y, x = waiting.popleft()
            part[y, x] = True
            for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                v, u = y + dy, x + dx
                if 0 <= v < mask.shape[0] and 0 <= u < mask.shape[1] and left[v, u]:
                    left[v, u] = False
                    waiting.append([v, u])
        parts.append(part)
    return parts


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(0, 2**16))
def test_parts_are_those_of_a_flood(count: int, height: int, width: int, smallest: int, seed: int) -> None:
    masks = torch.rand(count, height, width, generator=torch.Generator().manual_seed(seed)) > 0.4
    planes, owner = connected_parts(masks, smallest=smallest)
    expected = [
        (index, part) for index, mask in enumerate(masks) for part in flooded(mask) if int(part.sum()) >= smallest
    ]
    assert owner.tolist() == [index for index, _ in expected]
    assert planes.shape == (len(expected), height, width)
    for plane, (_, part) in zip(planes, expected, strict=True):
        assert torch.equal(plane, part)


def test_the_largest_parts_stay_in_their_order() -> None:
    masks = torch.zeros(2, 3, 12, dtype=torch.bool)
    masks[0, 0, 0:2], masks[0, 0, 4:9] = True, True
    masks[1, :, 0], masks[1, 1, 4] = True, True
    planes, owner = connected_parts(masks, limit=2)
    assert owner.tolist() == [0, 1]
    assert planes.sum(dim=(1, 2)).tolist() == [5, 3]
    assert connected_parts(masks, limit=0)[0].shape == (0, 3, 12)
    assert connected_parts(masks[:0])[0].shape == (0, 3, 12)
    corner = torch.eye(3, dtype=torch.bool)[None]
    assert len(connected_parts(corner)[0]) == 3


@pytest.mark.parametrize("radius", [0, 1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_opening_is_scikit_images(radius: int, seed: int) -> None:
    mask = torch.rand(1, 20, 30, generator=torch.Generator().manual_seed(seed)) > 0.06
    # Beyond the edge everything is part of the mask.
    framed = np.pad(mask[0].numpy(), 8, constant_values=True)
    square = np.ones((2 * radius + 1,) * 2, dtype=bool)
    eaten = opening(framed, square)[8:-8, 8:-8]
    ours = opened(mask, radius)[0].numpy()
    assert not (ours & ~mask[0].numpy()).any()
    inner = slice(2 * radius, 20 - 2 * radius), slice(2 * radius, 30 - 2 * radius)
    assert np.array_equal(ours[inner], eaten[inner])
    assert opened(torch.ones(1, 4, 4, dtype=torch.bool), radius).all()
