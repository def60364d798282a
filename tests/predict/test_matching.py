"""Matchers in the place of the cosine: fed with what they were trained on, told in results, refused where they fail."""

from __future__ import annotations

from collections.abc import Callable

import PIL.Image
import pytest
import torch
from torch import Tensor

from closeup.errors import InputError
from closeup.match import Matcher, new_matcher, score
from closeup.match.matcher import Inputs
from closeup.match.matchers import KINDS
from closeup.models.clip import Clip
from closeup.predict import classify, classify_many, detect_zero_shot, heatmap, segment, segment_many
from closeup.predict.cells import score_cells
from closeup.predict.result import Result
from closeup.predict.scorers import DenseScorer
from closeup.predict.words import as_bank
from closeup.regions import FG_CLIP, CropPolicy
from closeup.text import TextBank, Vocabulary, build_bank
from tiny_clips import picture
from tiny_towers import randomise

WORDS = ["cat", "dog", "grass", "sky"]
IMAGE = picture(40, 60).numpy()
BOXES = torch.tensor([[0.0, 0, 40, 30], [5, 5, 60, 40], [33.5, 2.25, 50, 20]])
INPUTS = pytest.mark.parametrize("inputs", ["unit", "raw"])

VERBS: dict[str, Callable[..., Result]] = {
    "classify": lambda clip, words, matcher: classify(clip, IMAGE, words, boxes=BOXES, matcher=matcher),
    "segment": lambda clip, words, matcher: segment(clip, IMAGE, words, matcher=matcher),
    "segment many": lambda clip, words, matcher: next(segment_many(clip, [IMAGE], words, matcher=matcher)),
    "heatmap": lambda clip, words, matcher: heatmap(clip, IMAGE, words, matcher=matcher),
    "detect": lambda clip, words, matcher: detect_zero_shot(clip, IMAGE, words, boxes=BOXES, matcher=matcher),
}
VERB = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)


def drawn(kind: str, inputs: Inputs = "unit", dim: int = 24, scale: float | None = None) -> Matcher:
    matcher = new_matcher(kind, dim, inputs=inputs, scale=scale)
    randomise(matcher, 0)
    return matcher


def sentences(clip: Clip, inputs: Inputs) -> Tensor:
    return clip.encode_text([f"a photo of a {word}." for word in WORDS], normalize=inputs == "unit")


@INPUTS
@pytest.mark.parametrize("kind", KINDS)
def test_cells_are_scored_by_what_the_matcher_was_trained_on(clip: Clip, kind: str, inputs: Inputs) -> None:
    matcher = drawn(kind, inputs)
    result = segment(clip, IMAGE, WORDS, size=64, matcher=matcher)
    pixels, _ = clip.preprocess(IMAGE, policy="fit", size=64)
    with torch.no_grad():
        features = clip.encode_dense(pixels[None], normalize=inputs == "unit")[0]
        expected = matcher(features.flatten(1).T, sentences(clip, inputs)).T.unflatten(1, features.shape[1:])
    torch.testing.assert_close(result.cells, expected, atol=1e-5, rtol=0)
    assert torch.equal(heatmap(clip, IMAGE, WORDS, size=64, matcher=matcher).cells, result.cells)


@INPUTS
@pytest.mark.parametrize("how", ["dense", "crop"])
def test_regions_are_scored_by_what_the_matcher_was_trained_on(clip: Clip, inputs: Inputs, how: str) -> None:
    matcher = drawn("linear", inputs, scale=30.0)
    result = classify(clip, IMAGE, WORDS, boxes=BOXES, how=how, top=4, matcher=matcher)
    crop = FG_CLIP if how == "crop" else None  # as matchers learn them
    (regions,) = clip.encode_regions(IMAGE, boxes=BOXES, how=how, crop=crop, normalize=inputs == "unit")
    with torch.no_grad():
        scores = matcher(regions, sentences(clip, inputs))
    torch.testing.assert_close(result.scores, scores.gather(1, result.labels), atol=1e-5, rtol=0)
    shares = (30 * scores).softmax(dim=1)
    torch.testing.assert_close(result.probabilities, shares.gather(1, result.labels), atol=1e-4, rtol=0)
    found = detect_zero_shot(clip, IMAGE, WORDS, boxes=BOXES, how=how, threshold=0.0, matcher=matcher)
    assert float(found.scores[0]) == pytest.approx(float(shares.max()), abs=1e-4)
    given = CropPolicy(enlarge=2.0)
    if how == "crop":
        wider = classify(clip, IMAGE, WORDS, boxes=BOXES, how=how, top=4, crop=given, matcher=matcher)
        (regions,) = clip.encode_regions(IMAGE, boxes=BOXES, how=how, crop=given, normalize=inputs == "unit")
        with torch.no_grad():
            scores = matcher(regions, sentences(clip, inputs))
        torch.testing.assert_close(wider.scores, scores.gather(1, wider.labels), atol=1e-5, rtol=0)


def test_without_a_scale_of_its_own_a_matcher_has_clips(clip: Clip) -> None:
    plain = classify(clip, IMAGE, WORDS, boxes=BOXES)
    same = classify(clip, IMAGE, WORDS, boxes=BOXES, matcher=new_matcher("cosine"))
    torch.testing.assert_close(same.probabilities, plain.probabilities, atol=1e-5, rtol=0)
    assert torch.equal(same.labels, plain.labels)
    assert not same.scores.requires_grad
    half = segment(clip, IMAGE, WORDS, background=0.5, matcher=drawn("linear", scale=1e-3))
    assert half.present == (), "four words of about a quarter each"


@VERB
def test_results_tell_their_matcher(clip: Clip, verb: Callable[..., Result]) -> None:
    matcher = drawn("mlp")
    settings = verb(clip, WORDS, matcher).provenance.settings
    assert (settings["matcher"], settings["matcher_fingerprint"]) == ("mlp", matcher.fingerprint)
    assert "matcher" not in verb(clip, WORDS, None).provenance.settings


@VERB
def test_a_matcher_of_another_width_is_refused(clip: Clip, verb: Callable[..., Result]) -> None:
    with pytest.raises(InputError, match=r"'linear' compares embeddings of 512 dimensions, .* 'tiny test' have 24"):
        verb(clip, WORDS, drawn("linear", dim=512))
    with pytest.raises(InputError, match="have 24"):
        DenseScorer(clip, matcher=drawn("linear", dim=512))


@VERB
def test_a_bank_of_unit_embeddings_is_no_raw_one(clip: Clip, verb: Callable[..., Result]) -> None:
    unit, raw = as_bank(clip, WORDS), build_bank(clip, Vocabulary(WORDS), mean="mean-of-raw")
    with pytest.raises(InputError, match="'normalise-then-mean', and the matcher 'linear' was trained on raw"):
        verb(clip, unit, drawn("linear", "raw"))
    matcher = drawn("linear", "raw")
    for given in (raw, WORDS):
        assert verb(clip, given, matcher).provenance.mean == "mean-of-raw"
    for name, array in verb(clip, raw, drawn("linear")).arrays().items():  # a unit matcher takes any length
        torch.testing.assert_close(
            torch.from_numpy(array),
            torch.from_numpy(verb(clip, unit, drawn("linear")).arrays()[name]),
            atol=1e-5,
            rtol=0,
        )


@INPUTS
def test_an_empty_prompt_is_embedded_as_the_words_are(clip: Clip, inputs: Inputs) -> None:
    matcher = drawn("linear", inputs)
    plain = heatmap(clip, IMAGE, WORDS, matcher=matcher).cells
    result = heatmap(clip, IMAGE, WORDS, contrast="empty", matcher=matcher).cells
    pixels, _ = clip.preprocess(IMAGE, policy="fit")
    with torch.no_grad():
        features = clip.encode_dense(pixels[None], normalize=inputs == "unit")[0]
        empty = matcher(features.flatten(1).T, clip.encode_text([""], normalize=inputs == "unit"))
    torch.testing.assert_close(result, plain - empty.T.unflatten(1, features.shape[1:]), atol=1e-5, rtol=0)


@INPUTS
@pytest.mark.parametrize("kind", ["mlp", "attention"])
def test_adding_a_word_never_changes_another_words_raw_score(clip: Clip, kind: str, inputs: Inputs) -> None:
    matcher = drawn(kind, inputs)
    few = segment(clip, IMAGE, WORDS[:2], matcher=matcher).cells
    torch.testing.assert_close(segment(clip, IMAGE, WORDS, matcher=matcher).cells[:2], few, atol=1e-6, rtol=0)


def test_synonyms_are_one_word(clip: Clip) -> None:
    matcher = drawn("attention", "raw")
    words = Vocabulary(["cat", "dog"], synonyms={"cat": ["grass", "sky"]})
    cells = segment(clip, IMAGE, words, matcher=matcher).cells
    alone = segment(clip, IMAGE, WORDS, matcher=matcher).cells
    torch.testing.assert_close(cells[0], alone[[0, 2, 3]].amax(dim=0), atol=1e-6, rtol=0)


@INPUTS
def test_windows_are_averaged_as_scores(clip: Clip, inputs: Inputs) -> None:
    matcher = drawn("linear", inputs)
    bank: TextBank = as_bank(clip, WORDS, matcher=matcher)
    found = segment(clip, IMAGE, WORDS, size=64, window=32, matcher=matcher).cells
    (pixels, _), total, seen = clip.preprocess(IMAGE, policy="fit", size=64), torch.zeros(4, 5, 8), torch.zeros(5, 8)
    assert pixels.shape == (3, 40, 64)
    for top in (0, 1):
        for left in (0, 2, 4):
            part = pixels[:, top * 8 : top * 8 + 32, left * 8 : left * 8 + 32]
            with torch.no_grad():
                features = clip.encode_dense(part[None], normalize=inputs == "unit")[0].flatten(1).T
                total[:, top : top + 4, left : left + 4] += score(features, bank, matcher).T.unflatten(1, (4, 4))
            seen[top : top + 4, left : left + 4] += 1
    torch.testing.assert_close(found, total / seen, atol=1e-5, rtol=0)


def test_many_images_are_each_image_alone(clip: Clip) -> None:
    matcher, images = drawn("linear", "raw"), [picture(40, 60, seed).numpy() for seed in range(3)]
    for result, image in zip(
        classify_many(clip, images, WORDS, boxes=[BOXES] * 3, matcher=matcher, batch=2), images, strict=True
    ):
        alone = classify(clip, image, WORDS, boxes=BOXES, matcher=matcher)
        torch.testing.assert_close(result.scores, alone.scores, atol=1e-6, rtol=0)


def test_cells_of_a_wrong_bank_are_refused(clip: Clip) -> None:
    with pytest.raises(InputError, match="texts have length one"):
        score_cells(clip, PIL.Image.fromarray(IMAGE), as_bank(clip, WORDS), matcher=drawn("linear", "raw"))
