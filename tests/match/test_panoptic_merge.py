from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from closeup._types import IGNORE
from closeup.match.panoptic_merge import Merged, merge


def by_pixel(
    probabilities: Tensor, masks: Tensor, things: list[bool], threshold: float, overlap: float
) -> tuple[list[list[int]], list[tuple[int, float]]]:
    """Merge pixel by pixel, all anew whenever a mask is dropped."""
    words = probabilities.shape[1] - 1
    height, width = masks.shape[1:]
    said = [(float(row.max()), int(row.argmax())) for row in probabilities]
    playing = [row for row, (score, label) in enumerate(said) if label < words and score > threshold]
    while True:
        winner = [[IGNORE] * width for _ in range(height)]
        for y in range(height):
            for x in range(width):
                best = 0.0
                for row in playing:
                    loud = float(probabilities[row].max() * masks[row, y, x])
                    if loud > best:
                        best, winner[y][x] = loud, row
        shares = {row: sum(line.count(row) for line in winner) / int((masks[row] > 0).sum()) for row in playing}
        weak = [row for row in playing if shares[row] < overlap or shares[row] == 0]
        if not weak:
            break
        playing.remove(min(weak, key=shares.__getitem__))
    number = {IGNORE: IGNORE}
    segments: list[tuple[int, float]] = []
    stuff: dict[int, int] = {}
    for row in playing:
        score, label = said[row]
        if not things[label] and label in stuff:
            number[row] = stuff[label]
            segments[number[row]] = (label, max(score, segments[number[row]][1]))
        else:
            number[row] = stuff[label] = len(segments)
            segments.append((label, score))
    return [[number[row] for row in line] for line in winner], segments


def drawn(count: int, seed: int, words: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    probabilities = (3 * torch.randn(count, words + 1, generator=generator)).softmax(dim=1)
    masks = torch.rand(count, 7, 9, generator=generator)
    for mask in masks:  # rectangles, so that some masks keep most of what they have
        top, left = torch.randint(0, 5, (2,), generator=generator).tolist()
        outside = torch.ones(7, 9, dtype=torch.bool)
        outside[top : top + 4, left : left + 5] = False
        mask[outside | (mask < 0.1)] = 0
    return probabilities, masks


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 6),
    st.integers(0, 2**16),
    st.lists(st.booleans(), min_size=4, max_size=4),
    st.sampled_from([0.0, 0.3, 0.6]),
    st.sampled_from([0.0, 0.25, 0.5, 0.8, 1.0]),
)
def test_segments_are_those_of_a_loop_over_pixels(
    count: int, seed: int, things: list[bool], threshold: float, overlap: float
) -> None:
    probabilities, masks = drawn(count, seed)
    found = merge(
        probabilities, lambda row, window: masks[row][window], (7, 9), things, threshold=threshold, overlap=overlap
    )
    places, segments = by_pixel(probabilities, masks, things, threshold, overlap)
    assert found.places.tolist() == places
    assert found.labels.tolist() == [label for label, _ in segments]
    assert found.scores.tolist() == pytest.approx([score for _, score in segments])
    holds_together(found, things, threshold)


def holds_together(found: Merged, things: list[bool], threshold: float) -> None:
    """Every segment has a pixel and every number a segment; a stuff has one segment; scores are above the threshold."""
    assert set(found.places.unique().tolist()) - {IGNORE} == set(range(len(found.labels)))
    stuff = [label for label in found.labels.tolist() if not things[label]]
    assert len(stuff) == len(set(stuff))
    assert bool((found.scores > threshold).all())


def test_one_mask_and_no_mask() -> None:
    sure = torch.tensor([[0.1, 0.9, 0.0]])
    mask = torch.zeros(1, 4, 4)
    mask[0, :2] = 0.7
    found = merge(sure, lambda row, window: mask[row][window], (4, 4), [True, True], threshold=0.5, overlap=0.8)
    assert found.places.tolist() == [[0] * 4] * 2 + [[IGNORE] * 4] * 2
    assert found.labels.tolist() == [1]
    assert found.scores.tolist() == pytest.approx([0.9])
    for nothing in (torch.tensor([[0.1, 0.2, 0.7]]), torch.tensor([[0.4, 0.35, 0.25]])):
        none = merge(nothing, lambda row, window: mask[row][window], (4, 4), [True, True], threshold=0.5, overlap=0.8)
        assert bool((none.places == IGNORE).all())
        assert len(none.labels) == len(none.scores) == 0
    empty = merge(sure[:0], lambda row, window: mask[row][window], (3, 5), [True, True], threshold=0.5, overlap=0.8)
    assert empty.places.shape == (3, 5)
    assert bool((empty.places == IGNORE).all())


def test_two_things_of_a_word_are_two_and_two_stuffs_of_a_word_are_one() -> None:
    sure = torch.tensor([[0.8, 0.2, 0.0], [0.9, 0.1, 0.0]])
    masks = torch.zeros(2, 4, 4)
    masks[0, :2], masks[1, 2:] = 1, 1
    things = merge(sure, lambda row, window: masks[row][window], (4, 4), [True, True], threshold=0.5, overlap=0.8)
    assert things.places.unique().tolist() == [0, 1]
    stuff = merge(sure, lambda row, window: masks[row][window], (4, 4), [False, True], threshold=0.5, overlap=0.8)
    assert stuff.places.unique().tolist() == [0]
    assert stuff.scores.tolist() == pytest.approx([0.9])


def test_of_two_masks_of_one_thing_one_stays() -> None:
    """Each is louder on one half; all at once, as in MaskFormer, both would be dropped."""
    masks = torch.full((2, 4, 8), 0.6)
    masks[0, :, :4] = masks[1, :, 4:] = 0.9
    sure = torch.tensor([[0.9, 0.0, 0.1], [0.0, 0.9, 0.1]])
    found = merge(sure, lambda row, window: masks[row][window], (4, 8), [True, True], threshold=0.5, overlap=0.8)
    assert found.places.unique().tolist() == [0]
    assert len(found.labels) == 1
    both = merge(sure, lambda row, window: masks[row][window], (4, 8), [True, True], threshold=0.5, overlap=0.5)
    assert both.labels.tolist() == [0, 1]
