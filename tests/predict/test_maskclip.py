from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from closeup._types import IGNORE
from closeup.data.world import World
from closeup.errors import InputError
from closeup.match import score_map
from closeup.models.clip import Clip
from closeup.predict import segment
from closeup.predict.maskclip import MaskClipScorer
from closeup.predict.segment import segment_by
from closeup.predict.words import as_bank
from tiny_clips import as_clip, eva_clip, vit_clip
from tiny_towers import resnet_clip

WORDS = ("star", "circle", "grass", "snow", "water")


def picture(height: int = 40, width: int = 64) -> np.ndarray:
    return np.asarray(World("test", count=1)[0].load().resize((width, height)))


@pytest.mark.parametrize("make", [vit_clip, eva_clip], ids=["vit", "eva"])
@pytest.mark.parametrize("keys", ["cells", "positions"])
@torch.no_grad()
def test_scores_are_refined_as_the_paper_writes(make: Callable[[], Clip], keys: Literal["cells", "positions"]) -> None:
    clip = make()
    bank = as_bank(clip, WORDS)
    result = segment_by(MaskClipScorer(clip, 64, denoising=0.3, smoothing=0.9, keys=keys), picture(), bank)
    pixels, _ = clip.preprocess(picture(), policy="fit", size=64)
    tower = clip.tower
    grid = tower.grid(pixels[None])
    block = tower.last_block(grid)  # type: ignore[attr-defined]
    _, found, _ = block.queries_keys_values(tower.tokens(pixels[None]))  # type: ignore[attr-defined]
    key = block.project(found.transpose(1, 2).flatten(2))[0, tower.prefix :]  # type: ignore[attr-defined]
    key = F.normalize(key, dim=1 if keys == "cells" else 0)
    cosines = score_map(clip.encode_dense(pixels[None]), bank)[0].flatten(1)
    shares = (clip.logit_scale * cosines).softmax(dim=0)
    likely = shares.amax(dim=1) >= 0.3
    if bool(likely.any()):
        shares = (clip.logit_scale * torch.where(likely[:, None], cosines, -100.0)).softmax(dim=0)
    expected = shares.clone()
    for cell in range(shares.shape[1]):
        if float(shares[:, cell].max()) < 0.9:
            expected[:, cell] = sum((key[cell] @ key[other]) * shares[:, other] for other in range(shares.shape[1]))
    torch.testing.assert_close(result.cells.flatten(1), expected, atol=1e-4, rtol=1e-3)


def test_without_refinements_it_is_plain_segmentation() -> None:
    clip = vit_clip()
    plain = segment(clip, picture(), WORDS, background=0.25)
    bare = segment_by(MaskClipScorer(clip, denoising=None, smoothing=None), picture(), WORDS, background=0.25)
    torch.testing.assert_close(bare.cells, plain.cells)
    assert torch.equal(bare.label_map, plain.label_map)


def test_smoothed_scores_are_no_probabilities_for_a_background() -> None:
    clip = vit_clip()
    with pytest.raises(InputError, match="smoothed scores are no probabilities"):
        segment_by(MaskClipScorer(clip), picture(), WORDS, background=0.5)
    by_word = segment_by(MaskClipScorer(clip), picture(), WORDS, background="water")
    whole = segment_by(MaskClipScorer(clip), picture(), WORDS)
    assert torch.equal(by_word.label_map == IGNORE, whole.label_map == WORDS.index("water"))


def test_wrong_settings_are_said() -> None:
    wrong: list[dict[str, Any]] = [{"denoising": 2.0}, {"smoothing": -1.0}, {"denoising": float("nan")}]
    for changes in wrong:
        with pytest.raises(InputError):
            MaskClipScorer(vit_clip(), **changes)


def test_convolutions_have_no_keys() -> None:
    with pytest.raises(InputError, match="no keys to smooth by"):
        as_clip(resnet_clip()).encode_dense_and_keys(torch.zeros(1, 3, 64, 64))
