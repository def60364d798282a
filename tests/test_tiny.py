"""Tiny, the model that ships inside: that it is what its card says, and shows what the papers start from."""

from __future__ import annotations

import json

import open_clip
import pytest
import torch

from closeup.data.world.world import World
from closeup.models.load import PACKAGED, load, packaged_models
from closeup.predict import evaluate_regions

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


@pytest.mark.parametrize("name", ADAPTED)
def test_adapted_models_share_the_text_tower_and_tell_how_they_were_made(name: str) -> None:
    base, adapted = load("tiny", device="cpu"), load(name, device="cpu")
    assert adapted.text_fingerprint == base.text_fingerprint
    assert adapted.fingerprint != base.fingerprint
    card = json.loads((PACKAGED / name / "card.json").read_text())
    assert (card["name"], card["recipe"], card["base"]["name"]) == (name, "clipself", "tiny")
    assert card["training"]["steps"] > 0
    assert sum(path.stat().st_size for path in (PACKAGED / name).iterdir()) < 6e6


LEARNED = {
    "tiny-clipself": {"things": 0.8, "stuff": 0.7},
    "tiny-clipself-patches": {"things": 0.25, "stuff": 0.7},
    "tiny-clipself-proposals": {"things": 0.8, "stuff": 0.0},
}
"""What each model gains at least: patches teach grounds, proposals teach things."""


def test_something_is_expected_of_every_adapted_model() -> None:
    assert sorted(LEARNED) == sorted(ADAPTED)


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
