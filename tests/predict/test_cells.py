from __future__ import annotations

import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from closeup.errors import InputError
from closeup.models.clip import Clip
from closeup.predict.cells import score_cells, window_starts
from closeup.predict.words import as_bank
from closeup.text import TextBank
from tiny_clips import eva_clip, picture


@pytest.fixture
def bank(clip: Clip) -> TextBank:
    return as_bank(clip, ["cat", "dog", "grass"])


def photo(height: int, width: int) -> PIL.Image.Image:
    return PIL.Image.fromarray(picture(height, width).numpy())


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_windows_cover_every_cell_and_never_leave(length: int, window: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, window))
    starts = window_starts(length, window, stride)
    covered = {cell for start in starts for cell in range(start, min(start + window, length))}
    assert covered == set(range(length))
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    if window <= length:
        assert starts[-1] + window == length


def test_the_plain_map_is_the_cosine_with_every_cell(clip: Clip, bank: TextBank) -> None:
    scores, canvas = score_cells(clip, photo(50, 90), bank, size=72)
    assert canvas == (40, 72)
    pixels, _ = clip.preprocess(photo(50, 90), policy="fit", size=72)
    with torch.no_grad():
        features = clip.encode_dense(pixels[None])[0]
    for row in range(5):
        for col in range(9):
            expected = F.cosine_similarity(features[:, row, col][None], bank.embeddings)
            torch.testing.assert_close(scores[:, row, col], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("window", [72, 100, (40, 72), (500, 80)])
def test_a_window_as_large_as_the_image_is_the_plain_map(
    clip: Clip, bank: TextBank, window: int | tuple[int, int]
) -> None:
    plain = score_cells(clip, photo(50, 90), bank, size=72)
    windowed = score_cells(clip, photo(50, 90), bank, size=72, window=window)
    assert torch.equal(plain.scores, windowed.scores)


@pytest.mark.parametrize(
    ("window", "stride", "batch"), [(32, 16, 8), (32, None, 3), ((16, 40), (16, 24), 1), (30, 9, 4)]
)
def test_overlapping_windows_are_averaged_cell_by_cell(
    clip: Clip,
    bank: TextBank,
    window: int | tuple[int, int],
    stride: int | tuple[int, int] | None,
    batch: int,
) -> None:
    found = score_cells(clip, photo(50, 90), bank, size=72, window=window, stride=stride, batch=batch).scores
    pixels, _ = clip.preprocess(photo(50, 90), policy="fit", size=72)
    high, wide = (-(-side // 8) for side in ((window, window) if isinstance(window, int) else window))
    steps = (high / 2, wide / 2) if stride is None else (stride, stride) if isinstance(stride, int) else stride
    down, across = (-(-int(step) // (1 if stride is None else 8)) for step in steps)
    lists: list[list[list[torch.Tensor]]] = [[[] for _ in range(9)] for _ in range(5)]
    tops = sorted({min(top, 5 - high) for top in range(0, 5 - high + down, down)})
    lefts = sorted({min(left, 9 - wide) for left in range(0, 9 - wide + across, across)})
    for top in tops:
        for left in lefts:
            part = pixels[:, top * 8 : (top + high) * 8, left * 8 : (left + wide) * 8]
            with torch.no_grad():
                features = clip.encode_dense(part[None])[0]
            for row in range(high):
                for col in range(wide):
                    cosine = F.cosine_similarity(features[:, row, col][None], bank.embeddings)
                    lists[top + row][left + col].append(cosine)
    for row in range(5):
        for col in range(9):
            expected = torch.stack(lists[row][col]).mean(dim=0)
            torch.testing.assert_close(found[:, row, col], expected, atol=1e-5, rtol=0)


def test_gaps_between_windows_are_refused(clip: Clip, bank: TextBank) -> None:
    with pytest.raises(InputError, match="larger than the window"):
        score_cells(clip, photo(50, 90), bank, size=72, window=32, stride=48)
    with pytest.raises(InputError, match="one or more"):
        score_cells(clip, photo(50, 90), bank, size=72, window=0)


def test_scores_are_ordinary_tensors_and_the_model_can_still_be_trained() -> None:
    clip = eva_clip()
    bank = as_bank(clip, ["cat", "dog"])
    scores = score_cells(clip, photo(40, 40), bank, size=40).scores
    assert not scores.is_inference()
    assert not scores.requires_grad
    clip.encode_dense(torch.zeros(1, 3, 40, 40)).sum().backward()
