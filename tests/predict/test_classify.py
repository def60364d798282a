from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from closeup.errors import ImageError, InputError
from closeup.geometry import masks_to_boxes
from closeup.models.clip import Clip
from closeup.predict import classify, classify_many
from closeup.predict.image_sources import Skipped
from closeup.predict.words import as_bank
from tiny_clips import picture

WORDS = ["cat", "dog", "grass", "sky", "red car", "tree"]
BOXES = torch.tensor([[0.0, 0, 40, 30], [5, 5, 60, 48], [33.5, 2.25, 70, 20], [0, 0, 80, 50]])


def image(seed: int = 0) -> np.ndarray:
    return picture(50, 80, seed).numpy()


def masks() -> torch.Tensor:
    planes = torch.zeros(3, 50, 80, dtype=torch.bool)
    planes[0, 3:20, 5:40] = True
    planes[1, 30:, 50:] = True
    planes[2, 10:40, 10:70] = True
    return planes


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(4)), st.sampled_from(["dense", "crop"]))
def test_permuting_boxes_permutes_results(clip: Clip, order: list[int], how: str) -> None:
    plain = classify(clip, image(), WORDS, boxes=BOXES, how=how)
    mixed = classify(clip, image(), WORDS, boxes=BOXES[order], how=how)
    assert torch.equal(mixed.labels, plain.labels[order])
    torch.testing.assert_close(mixed.scores, plain.scores[order], atol=1e-6, rtol=0)
    assert mixed.words == tuple(plain.words[i] for i in order)


@pytest.mark.parametrize("how", ["dense", "crop", "masked-crop"])
def test_scores_are_cosines_best_first_and_probabilities_their_softmax(clip: Clip, how: str) -> None:
    result = classify(clip, image(), WORDS, masks=masks(), how=how, top=4)
    bank = as_bank(clip, WORDS)
    regions = clip.encode_regions(image(), masks=masks(), how=how)[0]
    for row in range(3):
        cosines = F.cosine_similarity(regions[row][None], bank.embeddings)
        softmax = (cosines * clip.logit_scale).softmax(dim=0)
        torch.testing.assert_close(result.scores[row], cosines[result.labels[row]], atol=1e-6, rtol=0)
        torch.testing.assert_close(result.probabilities[row], softmax[result.labels[row]], atol=1e-5, rtol=0)
        assert float(cosines.max()) == pytest.approx(float(result.scores[row, 0]), abs=1e-6)
        assert all(a >= b for a, b in pairwise(result.scores[row].tolist()))
    assert result.labels.shape == (3, 4)
    assert result.size == (50, 80)


def test_adding_a_word_never_changes_another_words_raw_score(clip: Clip) -> None:
    few = classify(clip, image(), WORDS[:3], boxes=BOXES, top=9)
    many = classify(clip, image(), WORDS, boxes=BOXES, top=9)
    assert few.labels.shape == (4, 3)
    for row in range(4):
        before = dict(zip(few.labels[row].tolist(), few.scores[row].tolist(), strict=True))
        after = dict(zip(many.labels[row].tolist(), many.scores[row].tolist(), strict=True))
        for label, score in before.items():
            assert after[label] == pytest.approx(score, abs=1e-6)


def test_boxes_may_come_with_the_masks_of_masked_crops(clip: Clip) -> None:
    tight = classify(clip, image(), WORDS, masks=masks(), how="masked-crop")
    both = classify(clip, image(), WORDS, masks=masks(), boxes=masks_to_boxes(masks()), how="masked-crop")
    assert torch.equal(tight.labels, both.labels)
    assert both.boxes is not None
    assert both.masks is not None


def test_lists_are_boxes_and_an_empty_list_is_none(clip: Clip) -> None:
    assert classify(clip, image(), WORDS, boxes=[[1, 2, 30, 40]]).boxes is not None
    empty = classify(clip, image(), WORDS, boxes=[])
    assert len(empty) == 0
    assert empty.words == ()
    assert empty.labels.shape == (0, 5)


def test_many_images_are_each_image_alone(clip: Clip) -> None:
    images = [image(seed) for seed in range(5)]
    boxes = [BOXES[: seed % 3 + (seed > 0)] for seed in range(5)]
    results = list(classify_many(clip, images, WORDS, boxes=boxes, batch=2))
    assert [len(result) for result in results] == [0, 2, 3, 1, 2]
    for result, one, its in zip(results, images, boxes, strict=True):
        alone = classify(clip, one, WORDS, boxes=its)
        assert torch.equal(result.labels, alone.labels)
        torch.testing.assert_close(result.scores, alone.scores, atol=1e-6, rtol=0)


def test_bad_images_are_collected_and_the_others_done(clip: Clip, tmp_path: Path) -> None:
    good, broken = tmp_path / "good.png", tmp_path / "broken.png"
    PIL.Image.fromarray(image()).save(good)
    broken.write_bytes(b"no picture")
    outside = torch.tensor([[100.0, 100, 120, 120]])
    skipped: list[Skipped] = []
    images = [good, broken, tmp_path / "missing.png", good, good]
    boxes = [BOXES, BOXES, BOXES, outside, BOXES[:1]]
    results = list(classify_many(clip, images, WORDS, boxes=boxes, skipped=skipped))
    assert [len(result) for result in results] == [4, 1]
    assert [item.index for item in skipped] == [1, 2, 3]
    assert isinstance(skipped[0].error, ImageError)
    assert "outside" in str(skipped[2])
    assert results[0].image == good
    with pytest.raises(ImageError, match="missing"):
        list(classify_many(clip, images[2:3], WORDS, boxes=boxes[:1]))


def test_unequal_numbers_and_no_words_asked_for_are_refused(clip: Clip) -> None:
    with pytest.raises(InputError, match="ends after 1"):
        list(classify_many(clip, [image(), image()], WORDS, boxes=[BOXES]))
    with pytest.raises(InputError, match="ends after 1"):
        list(classify_many(clip, [image()], WORDS, boxes=[BOXES, BOXES]))
    with pytest.raises(InputError, match="top is 0"):
        classify(clip, image(), WORDS, boxes=BOXES, top=0)
    with pytest.raises(InputError, match="no regions"):
        classify(clip, image(), WORDS)
    with pytest.raises(InputError, match="region encoder"):
        classify(clip, image(), WORDS, boxes=BOXES, how="crops")


def test_the_result_says_what_made_it(clip: Clip) -> None:
    made = classify(clip, image(), WORDS, boxes=BOXES, size=64, route="attention").provenance
    assert made.model == "tiny test"
    assert made.fingerprint == clip.fingerprint
    assert (made.region_encoder, made.route, made.image_size) == ("dense", "attention", (64, 64))
    assert (made.words, made.templates, made.vocabulary) == (6, "simple", as_bank(clip, WORDS).vocabulary.hash)
