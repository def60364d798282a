"""Adapted models saved as what they changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from closeup.errors import InputError, ModelError
from closeup.models import save_local_dir
from closeup.models.changes import save_changes
from closeup.models.checkpoint import CHANGES
from closeup.models.clip import Clip
from closeup.models.load import load
from tiny_clips import vit_clip


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Clip, Clip]:
    """A saved base, and the same with one block stirred."""
    save_local_dir(vit_clip(seed=1), tmp_path / "base")
    base, adapted = (load(tmp_path / "base", device="cpu") for _ in range(2))
    with torch.no_grad():
        for parameter in adapted.model.visual.transformer.resblocks[-1].parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    return base, adapted


def test_changes_over_the_base_are_the_model_again(pair: tuple[Clip, Clip], tmp_path: Path) -> None:
    base, adapted = pair
    folder = save_changes(adapted, base, tmp_path / "adapted", {"recipe": "clipself"})
    assert load(folder, device="cpu").fingerprint == adapted.fingerprint
    kept = load_file(folder / CHANGES)
    assert kept
    assert all(name.startswith("visual.transformer.resblocks.") for name in kept)
    card = json.loads((folder / "card.json").read_text())
    assert card == {
        "name": "adapted",
        "recipe": "clipself",
        "base": {"name": base.name, "fingerprint": base.fingerprint},
    }
    again = save_changes(adapted, base, folder, dtype="fp16")
    assert (again / CHANGES).stat().st_size < 0.6 * sum(t.nbytes for t in kept.values())


def test_another_base_under_the_same_name_is_refused(pair: tuple[Clip, Clip], tmp_path: Path) -> None:
    base, adapted = pair
    folder = save_changes(adapted, base, tmp_path / "adapted")
    save_local_dir(vit_clip(seed=2), tmp_path / "base")
    with pytest.raises(ModelError, match=r"was made from a model .* with the weights"):
        load(folder, device="cpu")


def test_what_is_wrong_is_said(pair: tuple[Clip, Clip], tmp_path: Path) -> None:
    base, adapted = pair
    with pytest.raises(ModelError, match="was not adapted from"):
        save_changes(vit_clip(width=64), base, tmp_path / "other")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not a saved model"):
        save_changes(adapted, base, tmp_path / "full")
    folder = save_changes(adapted, base, tmp_path / "adapted")
    (folder / "card.json").write_text("{}")
    with pytest.raises(ModelError, match="names the base model"):
        load(folder)
