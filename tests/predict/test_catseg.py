from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from closeup.data.world import World
from closeup.heads.segmenter import Segmenter, new_segmenter
from closeup.models.load import load
from closeup.predict.catseg import CatSegScorer
from closeup.predict.segment import segment_by
from closeup.predict.words import as_bank
from closeup.text import Vocabulary
from tiny_towers import randomise

WORDS = ("star", "circle", "grass", "snow")
SMALL = {
    "hidden": 16,
    "heads": 2,
    "window": 4,
    "appearance": 8,
    "meaning": 8,
    "decoder": (16, 16),
    "guidance": (8, 8),
    "guides": (6, 4),
    "padding": 8,
    "tune": "nothing",
    "route": "value",
}


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    clip = load("tiny", device="cpu", precision="fp32")
    made = new_segmenter(clip, WORDS, (False,) * 4, templates="simple", size=48, config=SMALL)
    randomise(made.head, 0)
    made.head.eval()
    return made


def picture(height: int = 40, width: int = 64) -> np.ndarray:
    return np.asarray(World("test", count=1)[0].load().resize((width, height)))


def test_a_picture_is_seen_at_the_heads_size(segmenter: Segmenter) -> None:
    scorer = CatSegScorer(segmenter)
    result = segment_by(scorer, picture(), WORDS)
    pixels, _ = segmenter.clip.preprocess(picture(), policy="fit", size=48)
    expected = segmenter.head.score(pixels[None], as_bank(segmenter.clip, WORDS).embeddings)[0]
    torch.testing.assert_close(result.cells, expected)
    assert result.cells.shape[1:] == (4 * pixels.shape[1] // 8, 4 * pixels.shape[2] // 8)
    assert result.provenance.settings["head"] == "untrained"


def test_windows_are_averaged_and_the_whole_picture_with_them(segmenter: Segmenter) -> None:
    told: list[tuple[int, int]] = []
    scorer = CatSegScorer(segmenter, windows=True)
    result = segment_by(scorer, picture(), WORDS, on_progress=lambda *done: told.append(done))
    words = as_bank(segmenter.clip, WORDS).embeddings
    small, _ = segmenter.clip.preprocess(picture(), policy="fit", size=48)
    large, _ = segmenter.clip.preprocess(picture(), policy="fit", size=80)
    assert large.shape[1:] == (48, 80)
    whole = segmenter.head.score(small[None], words)[0]
    # 48 pixels are the window's side and 32 the step: two windows in the one row.
    total, seen = torch.zeros(4, 24, 40), torch.zeros(24, 40)
    for left in (0, 32):
        part = segmenter.head.score(large[None, :, :, left : left + 48], words)[0]
        total[:, :, left // 2 : left // 2 + 24] += part
        seen[:, left // 2 : left // 2 + 24] += 1
    expected = (total / seen + F.interpolate(whole[None], (24, 40), mode="bilinear")[0]) / 2
    torch.testing.assert_close(result.cells, expected)
    assert told == [(1, 2), (2, 2)]


def test_the_best_synonym_speaks_for_a_word(segmenter: Segmenter) -> None:
    words = Vocabulary(["star", "lawn"], synonyms={"lawn": ["grass"]})
    scorer = CatSegScorer(segmenter)
    result = segment_by(scorer, picture(), words)
    apart = segment_by(scorer, picture(), ("star", "lawn", "grass"))
    torch.testing.assert_close(result.cells[0], apart.cells[0])
    torch.testing.assert_close(result.cells[1], apart.cells[1:].amax(dim=0))


@pytest.mark.parametrize("size", [(30, 200), (101, 7), (64, 64)])
@pytest.mark.parametrize("windows", [True, False])
def test_any_shape_of_picture(segmenter: Segmenter, size: tuple[int, int], windows: bool) -> None:
    result = segment_by(CatSegScorer(segmenter, windows=windows), picture(*size), WORDS)
    assert result.label_map.shape == size
    assert bool(result.scores.isfinite().all())
