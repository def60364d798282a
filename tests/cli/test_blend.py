from __future__ import annotations

import json
from pathlib import Path

import open_clip
import PIL.Image
import pytest
import torch

from closeup.data.world import World
from closeup.models import Clip, load, save_local_dir
from closeup.models.blend import blend
from closeup.predict.forgetting import evaluate_forgetting
from commands import Run, files_below
from tiny_clips import vit_clip
from tiny_towers import images

QUICK = (
    "--data", "world?count=2&size=64", "--size", "32", "--templates", "simple", "--close-ups", "12", "--workers", "0",
    "--precision", "fp32",
)  # fmt: skip


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model of the same architecture, as if adapted, with a card."""
    return save_local_dir(vit_clip(seed=5), tmp_path_factory.mktemp("models") / "other", {"recipe": "clipself"})


@torch.no_grad()
def test_a_blend_is_saved_with_both_models_in_its_card(
    closeup: Run, small_clip: Clip, small_clip_folder: Path, other: Path, tmp_path: Path
) -> None:
    ran = closeup("blend", small_clip_folder, other, "--alpha", "0.7", "--out", "mixed", "--json")
    assert ran.code == 0, ran.err
    expected = blend(small_clip, load(other, precision="fp32"), 0.7)
    assert load(tmp_path / "mixed").fingerprint == ran.json["fingerprint"] == expected.fingerprint
    card = json.loads((tmp_path / "mixed" / "card.json").read_text())
    assert card["blend"]["alpha"] == 0.7
    assert card["blend"]["base"]["fingerprint"] == small_clip.fingerprint
    assert card["blend"]["adapted"]["fingerprint"] == load(other).fingerprint
    assert card["adapted"]["recipe"] == "clipself"
    model = open_clip.create_model(f"local-dir:{tmp_path / 'mixed'}").eval()
    pictures = images(32, 32)
    assert torch.allclose(model.encode_image(pictures), expected.encode_image(pictures), atol=1e-5)


def test_a_sweep_measures_every_alpha_and_draws(
    closeup: Run, small_clip: Clip, small_clip_folder: Path, other: Path, tmp_path: Path
) -> None:
    ran = closeup("blend", small_clip_folder, other, "--sweep", "1, 0,0.5", *QUICK, "--out", "sweep", "--json")
    assert ran.code == 0, ran.err
    assert files_below(tmp_path) == ["sweep/curve.png", "sweep/sweep.json"]
    points = ran.json["points"]
    assert [point["alpha"] for point in points] == [0, 0.5, 1]
    assert set(points[0]["gained"].values()) == {0}
    end = evaluate_forgetting(
        small_clip, load(other, precision="fp32"), World(count=2, size=(64, 64)), templates="simple", size=32,
        close_ups=12, workers=0,
    )  # fmt: skip
    assert points[2]["rows"] == end.to_dict()["rows"]
    stored = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert stored["points"] == points
    with PIL.Image.open(tmp_path / "sweep" / "curve.png") as picture:
        assert picture.width > 800


def test_a_sweep_as_a_table(closeup: Run, small_clip_folder: Path, other: Path) -> None:
    ran = closeup("blend", small_clip_folder, other, "--sweep", "0,1", *QUICK, "--how", "dense", "--out", "sweep")
    assert ran.code == 0, ran.err
    assert "gained: boxes, things" in ran.out
    assert "forgotten: retrieval R@1" in ran.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--alpha", "1.2"), "alpha 1.2 is outside 0 to 1"),
        (("--alpha", "-1"), "alpha -1 is outside 0 to 1"),
        (("--sweep", "0,1.2"), "alpha 1.2 is outside 0 to 1"),
        (("--sweep", "0;1"), "'0;1'"),
        ((), "--alpha"),
        (("--alpha", "0.5", "--sweep", "0,1"), "either"),
        (("--alpha", "0.5", "--out", "taken"), "taken"),
        (("--sweep", "0,1", "--out", "taken"), "taken"),
        (("--alpha", "0.5", "--out", "notes"), "not a saved model"),
        (("--sweep", "0,1", "--data", "notes"), "notes"),
        (("--sweep", "0,1", "--limit", "0"), "--limit 0"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    closeup: Run, small_clip_folder: Path, other: Path, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    (tmp_path / "taken").write_text("mine")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    ran = closeup("blend", small_clip_folder, other, "--out", "out", *words)
    assert ran.code == 2
    assert told in ran.err
    assert ran.err.startswith("closeup: error: ")
    assert ran.err.count("\n") == 1
    assert files_below(tmp_path) == ["notes/mine.txt", "taken"]


def test_models_of_two_architectures_are_not_blended(closeup: Run, small_clip_folder: Path, tmp_path: Path) -> None:
    wide = save_local_dir(vit_clip(width=48), tmp_path / "wide")
    ran = closeup("blend", small_clip_folder, wide, "--alpha", "0.5", "--out", "out")
    assert ran.code == 2
    assert "one architecture" in ran.err
    assert not (tmp_path / "out").exists()


def test_forgetting_is_a_part_of_evaluate(
    closeup: Run, small_clip: Clip, small_clip_folder: Path, other: Path, tmp_path: Path
) -> None:
    base = ("evaluate", "forgetting", "--before", small_clip_folder, "--after", other, *QUICK)
    ran = closeup(*base, "--json", "--out", "report.json")
    assert ran.code == 0, ran.err
    world = World(count=2, size=(64, 64))
    after = load(other, precision="fp32")
    expected = evaluate_forgetting(small_clip, after, world, templates="simple", size=32, close_ups=12, workers=0)
    assert ran.json["rows"] == expected.table()
    assert json.loads((tmp_path / "report.json").read_text())["rows"] == expected.table()
    shown = closeup(*base)
    assert "Gained: boxes, things" in shown.out
    assert closeup(*base, "--out", tmp_path).code == 2
