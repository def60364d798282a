"""Adaptations from options to a folder: where learning starts, and in what form it is saved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from closeup.errors import ConfigError, ModelError
from closeup.models import save_local_dir
from closeup.models.changes import save_changes
from closeup.models.checkpoint import CHANGES
from closeup.models.load import load
from closeup.recipes.run_adapt import Adaptation, adapt
from tiny_clips import vit_clip

SHORT = {"steps": 3, "batch_size": 2, "rate": 1e-2, "workers": 0, "precision": "fp32"}


def adaptation(base: Path, **changes: Any) -> Adaptation:  # noqa: ANN401 - settings of any kind
    settings = {"config": {"size": 48, "regions": "proposals"}, "training": SHORT, **changes}
    return Adaptation(recipe="clipself", images="world?count=4&size=64", model=str(base), **settings)


def card_of(folder: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((folder / "card.json").read_text())
    return card


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_local_dir(vit_clip(seed=1), tmp_path / "base")


def weights(folder: Path) -> Mapping[str, torch.Tensor]:
    state: Mapping[str, torch.Tensor] = load(folder, device="cpu").model.state_dict()
    return state


def test_changes_alone_are_the_whole_model_over_its_base(base: Path, tmp_path: Path) -> None:
    whole = adapt(adaptation(base), tmp_path / "whole").folder
    changes = adapt(adaptation(base, form="changes"), tmp_path / "changes").folder
    assert (changes / CHANGES).is_file()
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(changes).items())
    assert card_of(changes)["recipe"] == "clipself"
    blended = adapt(adaptation(base, form="changes", alpha=0.5), tmp_path / "changes", resume=True).folder
    assert card_of(blended)["blend"]["alpha"] == 0.5
    assert load(blended).fingerprint != load(whole).fingerprint


def test_learning_goes_on_from_an_adapted_model_while_the_teacher_stays(base: Path, tmp_path: Path) -> None:
    first = adapt(adaptation(base), tmp_path / "first").folder
    keeping = {"size": 48, "regions": "proposals", "keep_global": 1.0}
    second = adapt(adaptation(base, start=str(first), config=keeping), tmp_path / "second").folder
    assert card_of(second)["start"] == {"name": str(first), "fingerprint": load(first).fingerprint}
    assert card_of(second)["base"]["fingerprint"] == load(base).fingerprint
    log = [json.loads(line) for line in (tmp_path / "second-run" / "log.jsonl").read_text().splitlines()]
    assert log[0]["whole"] > 1e-4, "the student has left the teacher before the first step"
    fresh = adapt(adaptation(base, config=keeping), tmp_path / "fresh").folder
    assert load(fresh).fingerprint != load(second).fingerprint


def test_another_start_is_another_training(base: Path, tmp_path: Path) -> None:
    first = adapt(adaptation(base), tmp_path / "first").folder
    adapt(adaptation(base, start=str(first)), tmp_path / "second")
    with pytest.raises(ConfigError, match="was begun with the start"):
        adapt(adaptation(base), tmp_path / "second", resume=True)


def test_a_start_of_another_architecture_is_refused(base: Path, tmp_path: Path) -> None:
    other = save_local_dir(vit_clip(width=64), tmp_path / "other")
    with pytest.raises(ModelError, match="was not adapted from"):
        adapt(adaptation(base, start=str(other)), tmp_path / "second")
    assert not (tmp_path / "second-run").exists()


def test_a_start_may_be_changes_to_the_base(base: Path, tmp_path: Path) -> None:
    clip, adapted = load(base), load(base)
    with torch.no_grad():
        adapted.model.visual.ln_post.weight.add_(0.1)
    start = save_changes(adapted, clip, tmp_path / "start")
    done = adapt(adaptation(base, start=str(start)), tmp_path / "second").folder
    assert torch.equal(weights(done)["visual.ln_post.weight"], adapted.model.visual.ln_post.weight.cpu())


def test_a_run_from_before_a_setting_was_there_goes_on(base: Path, tmp_path: Path) -> None:
    adapt(adaptation(base), tmp_path / "old")
    path = tmp_path / "old-run" / "card.json"
    card = json.loads(path.read_text())
    del card["config"]["window"]
    path.write_text(json.dumps(card))
    adapt(adaptation(base), tmp_path / "old", resume=True)
    windowed = {"size": 48, "regions": "proposals", "window": 2}
    with pytest.raises(ConfigError, match="was begun with the config"):
        adapt(adaptation(base, config=windowed), tmp_path / "old", resume=True)
