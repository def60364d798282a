"""Matchers that look inside the tower, wherever results are made: as by hand, and refused where they cannot see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import PIL.Image
import pytest
import torch
from torch import Tensor

from closeup.data.fgovd import BENCHMARKS
from closeup.data.world.fine_grained import FineGrainedWorld, every_benchmark
from closeup.data.world.world import World
from closeup.errors import InputError
from closeup.evaluate import retrieval_recall
from closeup.match import Matcher, new_matcher
from closeup.match.matcher import Inputs, Seen
from closeup.match.scores import pair_scores
from closeup.models.clip import Clip
from closeup.models.levels import with_levels
from closeup.predict import (
    classify,
    classify_many,
    detect_zero_shot,
    evaluate_fine_grained,
    heatmap,
    segment,
    segment_many,
)
from closeup.predict.cells import score_cells
from closeup.predict.evaluate_benchmarks import evaluate_benchmarks
from closeup.predict.evaluate_segmentation import evaluate_scorer
from closeup.predict.matching import looked_at, seen_by, whole_seen_by
from closeup.predict.scorers import DenseScorer
from closeup.predict.whole_image import encode_whole, retrievals
from closeup.predict.words import as_bank
from closeup.regions import FG_CLIP
from tiny_clips import picture, vit_clip
from tiny_towers import randomise

WORDS = ["cat", "dog", "grass", "sky"]
IMAGE = picture(40, 60).numpy()
BOXES = torch.tensor([[0.0, 0, 40, 30], [5, 5, 60, 40], [33.5, 2.25, 50, 20]])
LEVELS = (0, 2)
INPUTS = pytest.mark.parametrize("inputs", ["unit", "raw"])
HOW = pytest.mark.parametrize("how", ["dense", "crop"])
WORLD = World(count=4, size=(96, 96))


def looking(
    clip: Clip,
    how: str,
    levels: tuple[int, ...] = LEVELS,
    *,
    inputs: Inputs = "unit",
    kind: str = "residual-mlp",
    seed: int = 0,
    images: str | None = None,
) -> Matcher:
    """Return a random matcher that looks inside, for which something is usual."""
    details = with_levels(clip, levels).dim - clip.dim
    seen = Seen(levels, details, images=images or clip.fingerprint, how=how)
    matcher = new_matcher(kind, clip.dim, inputs=inputs, seen=seen)
    randomise(matcher, seed)
    generator = torch.Generator().manual_seed(seed)
    seen.learn(torch.randn(details, generator=generator) * 0.3, torch.rand(details, generator=generator) + 0.5)
    return matcher


def sentences(clip: Clip, inputs: Inputs) -> Tensor:
    return clip.encode_text([f"a photo of a {word}." for word in WORDS], normalize=inputs == "unit")


@INPUTS
@HOW
@pytest.mark.parametrize("kind", ["residual-mlp", "linear"])
def test_regions_are_scored_with_their_details(clip: Clip, inputs: Inputs, how: str, kind: str) -> None:
    matcher, view = looking(clip, how, inputs=inputs, kind=kind), with_levels(clip, LEVELS)
    matcher.scale = 20.0
    crop = FG_CLIP if how == "crop" else None
    (regions,) = view.encode_regions(IMAGE, boxes=BOXES, how=how, crop=crop, normalize=inputs == "unit")
    with torch.no_grad():
        scores = matcher(regions, sentences(clip, inputs))
    result = classify(clip, IMAGE, WORDS, boxes=BOXES, how=how, top=4, matcher=matcher)
    torch.testing.assert_close(result.scores, scores.gather(1, result.labels), atol=1e-5, rtol=0)
    (same,) = classify_many(clip, [IMAGE], WORDS, boxes=[BOXES], how=how, top=4, matcher=matcher)
    torch.testing.assert_close(same.scores, result.scores, atol=1e-6, rtol=0)
    shares = (20 * scores).softmax(dim=1)
    found = detect_zero_shot(clip, IMAGE, WORDS, boxes=BOXES, how=how, threshold=0.0, matcher=matcher)
    assert float(found.scores[0]) == pytest.approx(float(shares.max()), abs=1e-4)
    blind = new_matcher("cosine", clip.dim, seen=matcher.seen)
    plain = classify(clip, IMAGE, WORDS, boxes=BOXES, how=how, top=4, crop=crop)
    alike = classify(clip, IMAGE, WORDS, boxes=BOXES, how=how, top=4, matcher=blind)
    torch.testing.assert_close(alike.scores, plain.scores, atol=1e-5, rtol=0)
    assert not torch.allclose(result.scores, plain.scores, atol=1e-2)


def test_no_boxes_are_no_objects(clip: Clip) -> None:
    for how in ("crop", "dense"):
        found = detect_zero_shot(clip, IMAGE, WORDS, boxes=BOXES[:0], how=how, matcher=looking(clip, how))
        assert len(found.boxes) == 0


@INPUTS
def test_cells_are_scored_with_their_details(clip: Clip, inputs: Inputs) -> None:
    matcher, view = looking(clip, "dense", inputs=inputs), with_levels(clip, LEVELS)
    pixels, _ = clip.preprocess(IMAGE, policy="fit", size=64)

    def scored(part: Tensor) -> Tensor:
        with torch.no_grad():
            maps = view.encode_dense(part[None], normalize=inputs == "unit")[0]
            found: Tensor = matcher(maps.flatten(1).T, sentences(clip, inputs)).T.unflatten(1, maps.shape[1:])
        return found

    expected = scored(pixels)
    result = segment(clip, IMAGE, WORDS, size=64, matcher=matcher)
    torch.testing.assert_close(result.cells, expected, atol=1e-5, rtol=0)
    (many,) = segment_many(clip, [IMAGE], WORDS, size=64, matcher=matcher)
    assert torch.equal(many.cells, result.cells)
    assert torch.equal(heatmap(clip, IMAGE, WORDS, size=64, matcher=matcher).cells, result.cells)
    total, seen = torch.zeros_like(expected), torch.zeros(expected.shape[1:])
    for top in (0, 1):
        for left in (0, 2, 4):
            total[:, top : top + 4, left : left + 4] += scored(
                pixels[:, top * 8 : top * 8 + 32, left * 8 : left * 8 + 32]
            )
            seen[top : top + 4, left : left + 4] += 1
    windows = segment(clip, IMAGE, WORDS, size=64, window=32, matcher=matcher)
    torch.testing.assert_close(windows.cells, total / seen, atol=1e-5, rtol=0)


def test_the_empty_prompt_is_scored_with_details_too(clip: Clip) -> None:
    matcher, view = looking(clip, "dense"), with_levels(clip, LEVELS)
    plain = heatmap(clip, IMAGE, WORDS, matcher=matcher).cells
    pixels, _ = clip.preprocess(IMAGE, policy="fit")
    with torch.no_grad():
        maps = view.encode_dense(pixels[None])[0]
        empty = matcher(maps.flatten(1).T, clip.encode_text([""])).T.unflatten(1, maps.shape[1:])
    contrasted = heatmap(clip, IMAGE, WORDS, contrast="empty", matcher=matcher).cells
    torch.testing.assert_close(contrasted, plain - empty, atol=1e-5, rtol=0)


VERBS: dict[str, Callable[[Clip, Matcher], Any]] = {
    "classify": lambda clip, matcher: classify(clip, IMAGE, WORDS, boxes=BOXES, matcher=matcher),
    "classify many": lambda clip, matcher: classify_many(clip, [IMAGE], WORDS, boxes=[BOXES], matcher=matcher),
    "segment": lambda clip, matcher: segment(clip, IMAGE, WORDS, matcher=matcher),
    "segment many": lambda clip, matcher: segment_many(clip, [IMAGE], WORDS, matcher=matcher),
    "heatmap": lambda clip, matcher: heatmap(clip, IMAGE, WORDS, matcher=matcher),
    "detect": lambda clip, matcher: detect_zero_shot(clip, IMAGE, WORDS, boxes=BOXES, matcher=matcher),
    "cells": lambda clip, matcher: score_cells(
        clip, PIL.Image.fromarray(IMAGE), as_bank(clip, WORDS, matcher=matcher), matcher=matcher
    ),
    "scorer": lambda clip, matcher: DenseScorer(clip, matcher=matcher),
    "evaluate segmentation": lambda clip, matcher: evaluate_scorer(DenseScorer(clip, matcher=matcher), WORLD),
    "evaluate fine-grained": lambda clip, matcher: evaluate_fine_grained(
        clip, FineGrainedWorld(WORLD, "color"), negatives=10, matcher=matcher, how="dense"
    ),
    "evaluate benchmarks": lambda clip, matcher: evaluate_benchmarks(
        clip, every_benchmark(WORLD), {"cosine": None, "mine": matcher}, how="dense"
    ),
}
VERB = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)


def unseen(*_: object, **__: object) -> None:
    raise AssertionError("a picture is looked at before the matcher is known to fit")


@VERB
def test_a_matcher_that_cannot_see_is_refused_before_any_picture_is_looked_at(
    clip: Clip, verb: Callable[[Clip, Matcher], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Clip, "preprocess", unseen)
    with pytest.raises(InputError, match=r"inside by the encoder 'crop', and here they come by 'dense'"):
        verb(clip, looking(clip, "crop"))
    other = vit_clip(seed=1)
    message = f"looks into the model {other.fingerprint[:12]}, and 'tiny test' is {clip.fingerprint[:12]}"
    with pytest.raises(InputError, match=message):
        verb(clip, looking(clip, "dense", images=other.fingerprint))


@VERB
def test_a_matcher_of_what_is_not_known_is_taken_at_its_word(clip: Clip, verb: Callable[[Clip, Matcher], Any]) -> None:
    matcher = looking(clip, "dense")
    assert matcher.seen is not None
    matcher.seen.images = None
    verb(clip, matcher)


@pytest.mark.parametrize("how", ["masked-crop", "mask-prompt", "mask-token", "crop"])
def test_other_encoders_show_something_else_inside(clip: Clip, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clip, "preprocess", unseen)
    masks = torch.zeros(1, 40, 60, dtype=torch.bool)
    masks[:, 5:30, 5:30] = True
    matcher = looking(clip, "dense" if how == "crop" else "crop")
    with pytest.raises(InputError, match=f"here they come by '{how}'"):
        classify(clip, IMAGE, WORDS, masks=masks, how=how, matcher=matcher)
    with pytest.raises(InputError, match=f"here they come by '{how}'"):
        evaluate_benchmarks(clip, every_benchmark(WORLD), {"mine": matcher}, how=how)


def test_the_tower_may_not_be_adapted_though_the_texts_are_the_same() -> None:
    """What plain matchers may be given, another image tower beside the same texts, is no substitute inside."""
    own, adapted = vit_clip(), vit_clip()
    with torch.no_grad():
        next(adapted.model.visual.parameters()).add_(0.1)
    assert own.text_fingerprint == adapted.text_fingerprint
    matcher, plain = looking(own, "dense"), new_matcher("residual", own.dim)
    matcher.texts = plain.texts = own.text_fingerprint
    classify(own, IMAGE, WORDS, boxes=BOXES, matcher=matcher)
    classify(adapted, IMAGE, WORDS, boxes=BOXES, matcher=plain)
    with pytest.raises(InputError, match="which is another one inside"):
        classify(adapted, IMAGE, WORDS, boxes=BOXES, matcher=matcher)


def test_a_view_of_the_model_will_do(clip: Clip) -> None:
    matcher, view = looking(clip, "dense"), with_levels(clip, (1,))
    found = classify(view, IMAGE, WORDS, boxes=BOXES, matcher=matcher)
    assert torch.equal(found.scores, classify(clip, IMAGE, WORDS, boxes=BOXES, matcher=matcher).scores)
    with pytest.raises(InputError, match="compares embeddings of 24 dimensions, and those of 'tiny test' have 88"):
        classify(view, IMAGE, WORDS, boxes=BOXES, matcher=new_matcher("linear", 24))


def test_what_is_seen(clip: Clip) -> None:
    matcher = looking(clip, "crop")
    assert (looked_at(None), looked_at(new_matcher("linear", 24)), looked_at(matcher)) == ((), (), LEVELS)
    assert seen_by(None, clip, "crop") is whole_seen_by(new_matcher("linear", 24), clip) is clip
    assert seen_by(matcher, clip, "crop").dim == whole_seen_by(matcher, clip).dim == 24 + 2 * 2 * 32


def several(clip: Clip, how: str) -> dict[str, Matcher | None]:
    """Return the cosine, plain matchers, and some that look at three choices of levels."""
    made: dict[str, Matcher | None] = {"cosine": None, "plain": new_matcher("linear", clip.dim)}
    raw = new_matcher("linear", clip.dim, inputs="raw")
    for seed, matcher in enumerate((made["plain"], raw)):
        assert matcher is not None
        randomise(matcher, seed)
    one, two, three = looking(clip, how), looking(clip, how, (1,), seed=1), looking(clip, how, (2, 0), seed=2)
    return {**made, "raw": raw, "one": one, "two": two, "turned": three, "fed raw": looking(clip, how, inputs="raw")}


@HOW
def test_all_at_once_is_each_by_itself(clip: Clip, how: str) -> None:
    readers = {name: FineGrainedWorld(WORLD, name) for name in ("1_attributes", "color")}
    by = several(clip, how)
    found = evaluate_benchmarks(clip, readers, by, how=how, batch=2)
    for name, report in found.items():
        alone = evaluate_benchmarks(clip, readers, {"": by[name]}, how=how, batch=2)[""]
        for benchmark, reader in readers.items():
            wrong = BENCHMARKS[benchmark].negatives
            one = evaluate_fine_grained(clip, reader, negatives=wrong, matcher=by[name], how=how)
            both = report.reports[benchmark]
            assert len(both.items) == len(one.items) > 0
            for ours, theirs, single in zip(both.items, one.items, alone.reports[benchmark].items, strict=True):
                torch.testing.assert_close(ours.scores, theirs.scores, atol=5e-6, rtol=1e-5)
                torch.testing.assert_close(ours.scores, single.scores, atol=5e-6, rtol=1e-5)
            assert both.provenance == one.provenance


@torch.no_grad()
def test_held_out_regions_are_scored_as_by_hand(clip: Clip) -> None:
    reader, matcher = FineGrainedWorld(WORLD, "color"), looking(clip, "dense", inputs="raw")
    found = evaluate_fine_grained(clip, reader, negatives=10, matcher=matcher, how="dense")
    scores = []
    for index in range(len(reader)):
        record = reader[index]
        if not record.descriptions:
            continue
        view = with_levels(clip, LEVELS)
        (regions,) = view.encode_regions(record.load(), boxes=record.known_boxes(), normalize=False)
        for region, told in zip(regions, record.descriptions, strict=True):
            said = clip.encode_text([told.right, *told.wrong[:10]], normalize=False)
            scores.append(matcher(region[None], said)[0])
    for ours, theirs in zip(found.items, scores, strict=True):
        torch.testing.assert_close(ours.scores, theirs, atol=1e-5, rtol=0)


@INPUTS
@torch.no_grad()
def test_retrieval_is_a_loop_over_pairs(clip: Clip, inputs: Inputs) -> None:
    matcher = looking(clip, "crop", inputs=inputs)
    images = encode_whole(whole_seen_by(matcher, clip), WORLD, normalize=inputs == "unit")
    assert images.levels == LEVELS
    texts = [caption for captions in images.captions for caption in captions]
    owner = torch.tensor([row for row, captions in enumerate(images.captions) for _ in captions])
    said = clip.encode_text(texts, normalize=False)
    view = with_levels(clip, LEVELS)
    own = torch.cat([view.encode_image(clip.preprocess(WORLD[index].load())[0][None]) for index in range(len(WORLD))])
    table = torch.tensor([[float(matcher(image[None], text[None])) for text in said] for image in own])
    expected = retrieval_recall(own, said, owner, score=lambda regions, rows: table[: len(regions), : len(rows)])
    assert retrievals(clip, images, {"mine": matcher})["mine"].summary() == expected.summary()
    torch.testing.assert_close(pair_scores(images.embeddings, said, matcher), table, atol=1e-5, rtol=0)
    # By whole pictures a matcher can be asked whatever encoder its regions come by, and through the view as well.
    dense = looking(clip, "dense", inputs=inputs)
    assert retrievals(view, images, {"mine": dense})["mine"].summary() == expected.summary()


def test_images_with_other_details_are_refused(clip: Clip) -> None:
    matcher, plain = looking(clip, "crop"), encode_whole(clip, WORLD)
    assert plain.levels == ()
    other = encode_whole(with_levels(clip, (0, 1)), WORLD)
    assert other.embeddings.shape[1] == with_levels(clip, LEVELS).dim
    for images in (plain, other):
        with pytest.raises(InputError, match=r"'mine' looks at the levels \(0, 2\), and the images have details of"):
            retrievals(clip, images, {"mine": matcher})
    with pytest.raises(InputError, match=r"'cosine' looks at the levels \(\), and the images have details of \(0, 1\)"):
        retrievals(clip, other, {"cosine": None})
    own = encode_whole(with_levels(clip, LEVELS), WORLD)
    with pytest.raises(InputError, match="which is another one inside"):
        retrievals(clip, own, {"mine": looking(clip, "crop", images="0" * 64)})
