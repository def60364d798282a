"""Tiny, the model that ships inside: that it is what its card says, and shows what the papers start from."""

from __future__ import annotations

import json

import open_clip
import pytest
import torch
from torchvision.ops import box_iou

from closeup.data.benchmarks import open_benchmarks
from closeup.data.record import iterate
from closeup.data.world.world import World
from closeup.heads.dense_predictor import load_dense_predictor
from closeup.heads.folder import packaged_heads
from closeup.heads.mask_proposer import load_mask_proposer
from closeup.heads.rpn import load_proposer
from closeup.heads.saved import load_detector
from closeup.heads.segmenter import load_segmenter
from closeup.match.matcher import Matcher
from closeup.match.matcher_file import load_matcher, packaged_matchers
from closeup.models.load import PACKAGED, load, packaged_models
from closeup.predict import evaluate_detection, evaluate_regions, propose_boxes
from closeup.predict.catseg import CatSegScorer
from closeup.predict.dense_predictor import DensePredictorScorer
from closeup.predict.evaluate_benchmarks import evaluate_benchmarks
from closeup.predict.evaluate_segmentation import evaluate_scorer
from closeup.predict.segment_masks import OvSegScorer

FOLDER = PACKAGED / "tiny"


def test_open_clip_loads_it_without_us() -> None:
    theirs = open_clip.create_model(f"local-dir:{FOLDER}").eval()
    clip = load("tiny", device="cpu", precision="fp32")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    tokens = open_clip.get_tokenizer(f"local-dir:{FOLDER}")(["a red star", "grass"])
    with torch.no_grad():
        torch.testing.assert_close(clip.encode_image(images), theirs.encode_image(images), atol=1e-5, rtol=1e-4)
        expected = theirs.encode_text(tokens, normalize=True)
    torch.testing.assert_close(clip.encode_text(["a red star", "grass"]), expected, atol=1e-5, rtol=1e-4)


def test_it_is_small_and_tells_how_it_was_made() -> None:
    weights = FOLDER / "open_clip_model.safetensors"
    assert weights.stat().st_size < 16e6
    card = json.loads((FOLDER / "card.json").read_text())
    assert card["recipe"] == "pretrain"
    assert card["config"]["steps"] > 0
    assert set(card["versions"]) >= {"closeup", "torch", "open_clip_torch"}


@pytest.mark.slow
def test_crops_are_recognised_and_the_dense_map_is_not() -> None:
    report = evaluate_regions(load("tiny"), World("val", count=60), size=256, workers=0)
    crop = report.recognition("crop", "boxes", "things").macro(1)
    dense = report.recognition("dense", "boxes", "things").macro(1)
    assert crop >= 0.8
    assert dense < crop / 2


ADAPTED = [name for name in packaged_models() if name != "tiny"]
MASK_ADAPTED = "tiny-maskadapt"


@pytest.mark.parametrize("name", ADAPTED)
def test_adapted_models_share_the_text_tower_and_tell_how_they_were_made(name: str) -> None:
    base, adapted = load("tiny", device="cpu"), load(name, device="cpu")
    assert adapted.text_fingerprint == base.text_fingerprint
    assert adapted.fingerprint != base.fingerprint
    card = json.loads((PACKAGED / name / "card.json").read_text())
    recipe = {"tiny-regionclip": "regionclip", MASK_ADAPTED: "maskadapt"}.get(name, "clipself")
    assert (card["name"], card["recipe"], card["base"]["name"]) == (name, recipe, "tiny")
    assert not any(text.startswith("/") for text in card["config"].values() if isinstance(text, str))
    assert card["training"]["steps"] > 0
    assert sum(path.stat().st_size for path in (PACKAGED / name).iterdir()) < 6e6


LEARNED = {
    "tiny-clipself": {"things": 0.8, "stuff": 0.7},
    "tiny-clipself-patches": {"things": 0.25, "stuff": 0.7},
    "tiny-clipself-proposals": {"things": 0.8, "stuff": 0.0},
    "tiny-regionclip": {"things": 0.35, "stuff": -0.1},
}
"""What each model gains at least: patches teach grounds, proposals teach things."""


def test_something_is_expected_of_every_adapted_model() -> None:
    assert sorted([*LEARNED, MASK_ADAPTED]) == sorted(ADAPTED)


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNED)
def test_the_map_of_adapted_models_is_recognised(name: str) -> None:
    raw, adapted = (
        evaluate_regions(load(model), World("val", count=40), how=("dense",), size=256, workers=0)
        for model in ("tiny", name)
    )

    def gained(shape: str, kind: str) -> float:
        return adapted.recognition("dense", shape, kind).macro() - raw.recognition("dense", shape, kind).macro()

    assert gained("boxes", "things") >= LEARNED[name]["things"]
    assert gained("masks", "things") >= LEARNED[name]["things"]
    assert gained("masks", "stuff") > LEARNED[name]["stuff"]


@pytest.mark.slow
def test_the_mask_adapted_model_names_masked_crops_better() -> None:
    world = World("val", count=60)
    before = evaluate_regions(load("tiny"), world, how=("masked-crop",), workers=0)
    after = evaluate_regions(load(MASK_ADAPTED), world, how=("mask-prompt",), workers=0)
    for kind, least in (("things", 0.1), ("stuff", 0.5)):
        was, now = before.recognition("masked-crop", "masks", kind), after.recognition("mask-prompt", "masks", kind)
        assert now.macro() >= was.macro() + least


@pytest.mark.slow
def test_segmenters_that_ship_name_pixels() -> None:
    world = World("val", count=16)
    proposer = load_mask_proposer("tiny-masks", device="cpu")
    alone, both, deeper, supervised = (
        evaluate_scorer(scorer, world, workers=0).summary()
        for scorer in (
            OvSegScorer(load("tiny"), proposer, weight=0.0),
            OvSegScorer(load(MASK_ADAPTED), proposer),
            CatSegScorer(load_segmenter("tiny-catseg", device="cpu")),
            DensePredictorScorer(load_dense_predictor("tiny-denseclip", device="cpu")),
        )
    )
    assert (supervised["miou"] or 0) >= 0.5
    means = [report["miou"] for report in (alone, both, deeper)]
    assert all(isinstance(mean, float) for mean in means)
    assert means == sorted(means)  # type: ignore[type-var]
    assert means[2] is not None
    assert means[2] >= 0.5


def test_the_proposer_that_ships_finds_shapes_that_it_never_learned() -> None:
    world, proposer = World("val", count=25), load_proposer("tiny-rpn", device="cpu")
    found: dict[bool, list[bool]] = {True: [], False: []}
    for record in iterate(world):
        assert record.boxes is not None
        assert record.labels is not None
        overlaps = box_iou(record.boxes.float(), propose_boxes(proposer, record.load()).boxes)
        for label, best in zip(record.labels.tolist(), overlaps.amax(dim=1).tolist(), strict=True):
            if world.things[label]:
                found[world.names[label] in world.novel].append(best >= 0.5)
    assert sum(found[False]) / len(found[False]) >= 0.9
    assert sum(found[True]) / len(found[True]) >= 0.8


@pytest.mark.slow
def test_the_detector_that_ships_finds_and_outlines_new_shapes() -> None:
    detector = load_detector("tiny-fvit", device="cpu")
    for masks in (False, True):
        found = evaluate_detection(detector, World("val", count=40), masks=masks, workers=0).summary()
        assert found["base AP50"] >= 0.7
        assert found["novel AP50"] >= 0.3


def test_heads_that_ship_name_no_place_of_this_machine() -> None:
    assert packaged_heads() == ["tiny-catseg", "tiny-denseclip", "tiny-fvit", "tiny-masks", "tiny-rpn"]
    for name in packaged_heads():
        card = (PACKAGED / name / "card.json").read_text()
        whole = name == "tiny-denseclip"  # it holds its image tower
        assert json.loads(card)["clip"]["name"] == "tiny-clipself"
        assert '"/' not in card
        assert sum(path.stat().st_size for path in (PACKAGED / name).iterdir()) < (9e6 if whole else 4e6)


def test_the_matchers_that_ship_are_of_tiny_and_begin_nowhere_else() -> None:
    assert packaged_matchers() == ["tiny-finegrained", "tiny-finegrained-levels"]
    for name in packaged_matchers():
        card = json.loads((PACKAGED / name / "card.json").read_text())
        assert card["trained"]["base"]["fingerprint"] == load("tiny").fingerprint
        assert card["figures"]["rank"] < card["figures"]["cosine"]
        matcher = load_matcher(name)
        assert (matcher.kind, matcher.inputs, matcher.dim) == ("residual-mlp", "unit", load("tiny").dim)
        assert sum(path.stat().st_size for path in (PACKAGED / name).iterdir()) < 1.5e6


def test_the_matcher_that_looks_inside_sees_more_of_crops() -> None:
    hard = open_benchmarks("world?negatives=1_attributes&count=60&split=test")
    names: dict[str, Matcher | None] = {"cosine": None}
    names |= {name: load_matcher(name) for name in packaged_matchers()}
    found = evaluate_benchmarks(load("tiny"), hard, names)
    ranks = {name: each.reports["1_attributes"].ranks().mean for name, each in found.items()}
    assert ranks["tiny-finegrained-levels"] < ranks["tiny-finegrained"] - 0.1 < ranks["cosine"] - 0.9, ranks
