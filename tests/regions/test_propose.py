from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import UInt8
from torch import Tensor
from torchvision.ops import box_iou

from closeup.data.world import World
from closeup.errors import ConfigError
from closeup.geometry import masks_to_boxes
from closeup.regions.propose import CoarseMasks, ProposalPolicy, Proposed, propose
from closeup.regions.segments import Level, merges, neighbours, segment_picture

FINE = ProposalPolicy(levels=(Level(300, 0.8, 20),), smallest=0.0)
Pixels = UInt8[np.ndarray, "height width 3"]


def patchwork(height: int, width: int, seed: int = 0) -> Pixels:
    """Return rectangles of random colours, some of them one over another."""
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 90, np.uint8)
    for _ in range(8):
        top, left = rng.integers(height), rng.integers(width)
        rows, cols = rng.integers(1, height + 1), rng.integers(1, width + 1)
        pixels[top : top + rows, left : left + cols] = rng.integers(0, 256, 3)
    return pixels


def check_regions(found: Proposed, height: int, width: int, policy: ProposalPolicy) -> None:
    masks = found.masks[:]
    assert 1 <= len(found) <= policy.limit
    assert masks.shape == (len(found), height, width)
    assert masks.flatten(1).any(dim=1).all()
    assert torch.equal(found.boxes, masks_to_boxes(masks))
    assert (found.boxes[:, :2] >= 0).all()
    assert (found.boxes[:, 2:] <= torch.tensor([width, height])).all()


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    side=st.integers(1, 70),
    limit=st.integers(1, 12),
    seed=st.integers(0, 50),
)
def test_every_region_lies_on_the_picture_and_fills_its_box(
    height: int, width: int, side: int, limit: int, seed: int
) -> None:
    policy = ProposalPolicy(levels=(Level(50, 0.5, 4), Level(500, 1.5, 20)), side=side, limit=limit, smallest=0.0)
    pixels = patchwork(height, width, seed)
    found = propose(pixels, policy)
    check_regions(found, height, width, policy)
    again = propose(PIL.Image.fromarray(pixels), policy)
    assert torch.equal(found.boxes, again.boxes)
    assert torch.equal(found.masks.planes, again.masks.planes)


def test_things_of_one_colour_are_found_alone_and_together() -> None:
    pixels = np.full((64, 96, 3), 40, np.uint8)
    pixels[10:40, 8:30] = (220, 30, 30)
    pixels[10:40, 30:50] = (30, 200, 60)
    pixels[20:60, 70:90] = (250, 250, 250)
    found = propose(pixels, FINE)
    for box in ([8, 10, 30, 40], [30, 10, 50, 40], [70, 20, 90, 60], [8, 10, 50, 40]):
        # Smoothing moves borders by a pixel.
        assert float(box_iou(torch.tensor([box]).float(), found.boxes).max()) > 0.85, box


def test_the_largest_come_first_and_a_limit_keeps_them() -> None:
    scene = World("val", count=2)[0].image
    assert isinstance(scene, PIL.Image.Image)
    every = propose(scene)
    sizes = every.masks.planes.flatten(1).sum(dim=1)
    assert len(every) > 40
    assert (sizes[1:] <= sizes[:-1]).all()
    few = propose(scene, ProposalPolicy(limit=10))
    assert torch.equal(few.boxes, every.boxes[:10])


def test_shares_and_duplicates_are_as_the_policy_says() -> None:
    policy = ProposalPolicy(smallest=0.01, largest=0.2, duplicate=0.6)
    scene = World("val", count=2)[1].image
    assert isinstance(scene, PIL.Image.Image)
    found = propose(scene, policy)
    shares = found.masks[:].float().mean(dim=(1, 2))
    assert float(shares.min()) >= 0.01
    assert float(shares.max()) <= 0.2
    overlap = box_iou(found.boxes, found.boxes).fill_diagonal_(0)
    assert float(overlap.max()) <= 0.6


def test_most_things_of_the_world_are_found() -> None:
    world = World("val", count=6)
    best: list[Tensor] = []
    for index in range(len(world)):
        record = world[index]
        assert record.labels is not None
        assert record.boxes is not None
        assert isinstance(record.image, PIL.Image.Image)
        things = torch.tensor([world.things[label] for label in record.labels.tolist()])
        best.append(box_iou(record.boxes[things], propose(record.image).boxes).amax(dim=1))
    assert float((torch.cat(best) >= 0.5).float().mean()) > 0.75


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (2, 2), (64, 64), (3, 4000), (3000, 2)])
def test_one_colour_gives_the_top_left_quarter(size: tuple[int, int]) -> None:
    height, width = size
    found = propose(np.full((height, width, 3), 77, np.uint8))
    check_regions(found, height, width, ProposalPolicy())
    assert len(found) == 1
    assert found.boxes[0].tolist() == [0, 0, (width + 1) // 2, (height + 1) // 2]


def test_a_wide_picture_keeps_its_length() -> None:
    pixels = np.full((5, 3000, 3), 20, np.uint8)
    pixels[:, 1000:2000] = 240
    found = propose(pixels, FINE)
    check_regions(found, 5, 3000, FINE)
    middle = torch.tensor([[1000.0, 0.0, 2000.0, 5.0]])
    assert float(box_iou(middle, found.boxes).max()) > 0.9


def test_masks_are_scaled_by_the_centres_of_pixels() -> None:
    planes = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0)) > 0.5
    planes[:, 2, 3] = True
    masks = CoarseMasks(planes, (11, 17))
    expected = torch.stack([
        torch.tensor([[plane[int((y + 0.5) * 4 / 11), int((x + 0.5) * 5 / 17)] for x in range(17)] for y in range(11)])
        for plane in planes
    ])  # fmt: skip
    assert torch.equal(masks[:], expected)
    assert torch.equal(masks[torch.tensor([2, 0])], expected[[2, 0]])
    assert torch.equal(masks.boxes(), masks_to_boxes(expected))


def test_any_mode_of_picture_is_taken() -> None:
    picture = PIL.Image.fromarray(patchwork(40, 40)).convert("L")
    assert torch.equal(propose(picture).boxes, propose(picture.convert("RGB")).boxes)


def test_neighbours_share_a_border() -> None:
    segments = np.array([[0, 0, 1], [2, 0, 1], [2, 3, 3]])
    assert neighbours(segments).tolist() == [[0, 1], [0, 2], [0, 3], [1, 3], [2, 3]]
    assert neighbours(np.zeros((1, 1), np.int64)).shape == (0, 2)


def test_the_most_alike_are_merged_first() -> None:
    segments = np.repeat(np.array([[0, 1, 2, 3]]), 4, axis=0)
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[..., 0] = (10, 100, 130, 250)
    found = [set(each) for each in merges(pixels, segments, neighbours(segments))]
    assert found == [{1, 2}, {0, 1, 2}, {0, 1, 2, 3}]


def test_segments_cover_the_picture() -> None:
    segments = segment_picture(patchwork(30, 40), Level(50, 0.5, 10))
    assert segments.shape == (30, 40)
    assert np.unique(segments).tolist() == list(range(segments.max() + 1))
    assert np.bincount(segments.ravel()).min() >= 10


@pytest.mark.parametrize(
    "changes",
    [
        {"levels": ()}, {"side": 0}, {"limit": 0}, {"smallest": -0.1}, {"largest": 1.5}, {"smallest": 0.9},
        {"duplicate": 0.0}, {"smallest": float("nan")},
    ],
    ids=str,
)  # fmt: skip
def test_a_policy_outside_its_range_is_an_error(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=rf"`{next(iter(changes))}`"):
        ProposalPolicy(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [(0, 1, 1), (1, -1, 1), (1, 1, 0), (float("nan"), 1, 1)])
def test_a_level_outside_its_range_is_an_error(values: tuple[float, float, int]) -> None:
    with pytest.raises(ConfigError, match="A level of scale"):
        Level(*values)
