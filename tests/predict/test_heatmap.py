from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from closeup.errors import InputError
from closeup.models.clip import Clip
from closeup.predict import heatmap, segment
from tiny_clips import picture

WORDS = ["cat", "dog", "grass"]
IMAGE = picture(40, 60).numpy()


def test_a_heat_map_is_the_raw_score_of_every_cell(clip: Clip) -> None:
    result = heatmap(clip, IMAGE, WORDS, size=64)
    assert torch.equal(result.cells, segment(clip, IMAGE, WORDS, size=64).cells)
    assert result.names == tuple(WORDS)
    assert result.pixels().shape == (3, 40, 60)


def test_others_takes_off_the_mean_of_the_other_words(clip: Clip) -> None:
    plain = heatmap(clip, IMAGE, WORDS).cells
    result = heatmap(clip, IMAGE, WORDS, contrast="others").cells
    for word in range(3):
        others = torch.stack([plain[other] for other in range(3) if other != word]).mean(dim=0)
        torch.testing.assert_close(result[word], plain[word] - others, atol=1e-6, rtol=0)


def test_empty_takes_off_the_empty_prompt(clip: Clip) -> None:
    plain = heatmap(clip, IMAGE, WORDS).cells
    result = heatmap(clip, IMAGE, WORDS, contrast="empty").cells
    pixels, _ = clip.preprocess(IMAGE, policy="fit")
    with torch.no_grad():
        empty = F.cosine_similarity(clip.encode_dense(pixels[None]), clip.encode_text([""])[..., None, None])
    torch.testing.assert_close(result, plain - empty, atol=1e-5, rtol=0)


def test_wrong_contrasts_are_refused(clip: Clip) -> None:
    with pytest.raises(InputError, match="only word"):
        heatmap(clip, IMAGE, ["cat"], contrast="others")
    with pytest.raises(InputError, match="'other'"):
        heatmap(clip, IMAGE, WORDS, contrast="other")


def test_the_picture_has_a_map_per_word(clip: Clip) -> None:
    one, three = (heatmap(clip, IMAGE, words).picture() for words in (["cat"], WORDS))
    assert three.width * three.height > 2 * one.width * one.height
