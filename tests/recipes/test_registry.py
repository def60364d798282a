from __future__ import annotations

import os

import pytest

from closeup.errors import ConfigError, InputError
from closeup.recipes.clipself_config import paper, released, tiny
from closeup.recipes.registry import REGISTRY, get_recipe

COCO = 118_287
CLIPSELF = REGISTRY["clipself"]


@pytest.mark.parametrize(("name", "preset"), [("paper", paper), ("released", released), ("tiny", tiny)])
def test_a_preset_is_as_written_but_for_the_workers(name: str, preset: object) -> None:
    what, how = CLIPSELF.settings(name, COCO, {}, {"workers": 4})
    assert (what, how) == preset(COCO)  # type: ignore[operator]
    assert CLIPSELF.settings(name, COCO, {}, {})[1].workers <= (os.cpu_count() or 1)


def test_settings_given_win() -> None:
    what, how = CLIPSELF.settings("paper", 100, {"blocks": 2, "scales": (64, 96)}, {"steps": 5000, "rate": 1e-3})
    assert (what.to_dict()["blocks"], what.to_dict()["scales"]) == (2, [64, 96])
    assert (how.steps, how.rate, how.batch_size, how.warmup) == (5000, 1e-3, 16, 500)


def test_the_warm_up_of_a_short_training_is_short() -> None:
    assert CLIPSELF.settings("paper", 320, {}, {})[1].steps == 120
    assert CLIPSELF.settings("paper", 320, {}, {})[1].warmup == 12
    assert CLIPSELF.settings("paper", 320, {}, {"warmup": 100})[1].warmup == 100
    assert CLIPSELF.settings("paper", 320, {}, {"steps": 3})[1].warmup == 0


def test_unknown_names_are_told_with_near_misses() -> None:
    with pytest.raises(InputError, match=r"'clipslef'.*'clipself'"):
        get_recipe("clipslef")
    with pytest.raises(InputError, match=r"'papr'.*'paper'"):
        CLIPSELF.settings("papr", 10, {}, {})
    with pytest.raises(ConfigError, match="'block'"):
        CLIPSELF.settings("paper", 10, {"block": 2}, {})


def test_regionclip_is_trained_as_its_configuration_says() -> None:
    """microsoft/RegionCLIP, pretrain.sh and RegionCLIP_RN50.yaml; the baseline has CLIPSelf's schedule."""
    entry = REGISTRY["regionclip"]
    what, how = entry.settings("paper", 3_000_000, {"concepts": "concepts.txt"}, {})
    told = what.to_dict()
    assert (told["max_regions"], told["temperature"], told["threshold"]) == (100, 0.01, 0.1)
    assert [told[name] for name in ("contrast", "distill", "image_text")] == [1.0, 1.0, 1.0]
    assert (how.optimizer, how.rate, how.weight_decay, how.batch_size, how.warmup) == ("sgd", 2e-3, 1e-4, 96, 1000)
    assert how.steps == pytest.approx(600_000, rel=0.02)
    nouns, schedule = entry.settings("clipself", COCO, {}, {"workers": 4})
    assert (nouns.to_dict()["objective"], nouns.to_dict()["max_regions"], nouns.to_dict()["nouns"]) == (
        "nouns",
        20,
        100,
    )
    assert schedule == paper(COCO)[1]
