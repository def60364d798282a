"""Matchers in files: what was saved comes back, official checkpoints score as published, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from closeup.errors import InputError, ModelError
from closeup.match import load_matcher, new_matcher, save_matcher
from closeup.match.matchers import KINDS
from full_disk import room_for
from goldens import SHARED, Golden, assert_close, cases

CHECKPOINTS = SHARED / "data" / "fgclip_checkpoints"
NEEDED = pytest.mark.skipif(not CHECKPOINTS.is_dir(), reason=f"no official checkpoints in {CHECKPOINTS}")


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_saved_comes_back(kind: str, tmp_path: Path) -> None:
    hidden, heads = 10 if kind in ("mlp", "residual-mlp") else None, 4 if kind == "attention" else None
    made = new_matcher(kind, 24, hidden=hidden, heads=heads, inputs="raw", scale=12.5)
    folder = save_matcher(made, tmp_path / "mine", {"recipe": "matcher", "metrics": {"rank": 1.5}})
    again = load_matcher(folder)
    assert (again.fingerprint, again.name, again.training) == (made.fingerprint, str(folder), False)
    assert (again.inputs, again.scale, again.settings) == ("raw", 12.5, made.settings)
    regions, texts = torch.randn(3, 24), torch.randn(4, 24)
    assert torch.equal(again(regions, texts), made(regions, texts))
    card = json.loads((folder / "card.json").read_text())
    assert (card["matcher"], card["recipe"], card["name"]) == (kind, "matcher", "mine")
    save_matcher(new_matcher("linear", 8), folder, dtype="fp16")
    replaced = load_matcher(folder)
    assert (replaced.kind, replaced.dim) == ("linear", 8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


@NEEDED
@pytest.mark.parametrize("golden", cases("fgclip_matchers"))
@pytest.mark.parametrize("suffix", [".pt", ""])
@pytest.mark.parametrize("stage", ["triplet", "fg-ovd"])
@pytest.mark.parametrize(
    ("name", "kind"),
    [("linear-mlp", "linear"), ("linear-mlp_te-freezed", "linear-image"), ("linear-mlp_ve-freezed", "linear-text")],
)
def test_official_checkpoints(golden: Golden, suffix: str, stage: str, name: str, kind: str) -> None:
    matcher = load_matcher(CHECKPOINTS / f"{stage}_{name}{suffix}")
    assert (matcher.kind, matcher.dim, matcher.inputs, matcher.scale) == (kind, 512, "raw", None)
    assert matcher.seen is None
    with torch.no_grad():
        found = matcher(golden["in/ckpt_v"], golden["in/ckpt_t"])
    assert_close(found, golden[f"out/ckpt/{stage}_{name}.pt/matrix"])


@NEEDED
def test_an_official_checkpoint_saved_anew_scores_the_same(tmp_path: Path) -> None:
    matcher = load_matcher(str(CHECKPOINTS / "fg-ovd_linear-mlp"))
    again = load_matcher(save_matcher(matcher, tmp_path / "mine"))
    assert again.fingerprint == matcher.fingerprint


def test_what_is_no_matcher_is_refused(tmp_path: Path) -> None:
    folder = save_matcher(new_matcher("linear", 8), tmp_path / "mine")
    good = json.loads((folder / "card.json").read_text())
    with pytest.raises(ModelError, match="There is no matcher"):
        load_matcher(tmp_path / "yours")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"holds no matcher\.safetensors"):
        load_matcher(tmp_path / "empty")
    for card, message in (
        ("no json", "makes no matcher"),
        ("[]", "has no matcher, dim"),
        ("3", "makes no matcher"),
        (json.dumps({**good, "matcher": "lines"}), "Unknown matcher 'lines'"),
        (json.dumps({**good, "dim": 9}), r"not \(9, 9\)"),
        (json.dumps({**good, "dim": "9"}), "makes no matcher"),
        (json.dumps({**good, "heads": 2}), "'attention' alone"),
    ):
        (folder / "card.json").write_text(card)
        with pytest.raises(ModelError, match=message):
            load_matcher(folder)
    torch.save({"visual.proj": torch.zeros(2, 2)}, tmp_path / "clip.pt")
    with pytest.raises(ModelError, match=r"is no matcher: it holds visual\.proj"):
        load_matcher(tmp_path / "clip")
    (tmp_path / "broken.pt").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot be read"):
        load_matcher(tmp_path / "broken.pt")


def test_nothing_half_written_and_nothing_else_overwritten(tmp_path: Path) -> None:
    folder = save_matcher(new_matcher("linear", 8), tmp_path / "mine")
    with room_for(1000), pytest.raises(OSError, match="large"):
        save_matcher(new_matcher("linear", 64), folder)
    assert load_matcher(folder).dim == 8
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(InputError, match="not a saved model"):
        save_matcher(new_matcher("linear", 8), tmp_path / "notes")
