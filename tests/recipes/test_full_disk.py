"""A full disk, or a folder that nobody can write: one clear error, nothing half written, the last checkpoint good."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from closeup.errors import CloseupError
from closeup.recipes.clipself import ClipSelf
from closeup.recipes.clipself_config import ClipSelfConfig
from closeup.recipes.config import TrainConfig
from closeup.recipes.train import train
from commands import files_below
from full_disk import room_for
from small_runs import run, saved_step, weights, words
from tiny_clips import vit_clip
from tiny_pictures import Pictures

CONFIG = TrainConfig(steps=4, batch_size=2, rate=1e-2, precision="fp32", workers=0, save_every=2)


def recipe() -> ClipSelf:
    return ClipSelf(vit_clip(), Pictures(), ClipSelfConfig(size=48, max_split=3))


def half_of_the_weights(folder: Path) -> int:
    return (folder / "state-00000002" / "module.safetensors").stat().st_size // 2


def half_of_the_optimiser(folder: Path) -> int:
    return (folder / "state-00000002" / "optimizers.pt").stat().st_size // 2


@pytest.mark.parametrize("room", [half_of_the_weights, half_of_the_optimiser])
def test_a_full_disk_leaves_the_last_checkpoint(room: Callable[[Path], int], tmp_path: Path) -> None:
    whole, broken = recipe(), recipe()
    train(whole, CONFIG, tmp_path / "whole")
    train(recipe(), CONFIG, tmp_path / "run", until=2)
    before = files_below(tmp_path / "run")
    with (
        room_for(room(tmp_path / "run")),
        pytest.raises(CloseupError, match=r"Cannot write the checkpoint of step 4 to .*: File too large"),
    ):
        train(recipe(), CONFIG, tmp_path / "run", resume=True)
    assert files_below(tmp_path / "run") == before
    train(broken, CONFIG, tmp_path / "run", resume=True)
    expected = whole.module.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in broken.module.state_dict().items())


def short(folder: Path, model: Path, *more: object) -> list[str]:
    return words(folder, model, "out", "--steps", "3", "--save-every", "2", *more)


def test_no_room_for_a_checkpoint_is_one_line(
    small_clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = short(tmp_path, small_clip_folder)
    with room_for(20_000):
        assert run(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("closeup: error: ") == 1
    assert "Cannot write the checkpoint of step 2" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()
    assert files_below(tmp_path / "out-run") == ["card.json", "log.jsonl"]


def test_no_room_for_the_model_keeps_what_was_learned(
    small_clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = short(tmp_path, small_clip_folder)
    with room_for(1_000_000):  # the state has room and the text tower has not
        assert run(arguments) == 2
    assert "Cannot write the model to" in capsys.readouterr().err
    assert saved_step(tmp_path / "out-run") == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out-run", "photos"]
    assert run([*arguments, "--resume"]) == 0
    assert run(words(tmp_path, small_clip_folder, "whole", "--steps", "3")) == 0
    expected = weights(tmp_path / "whole")
    assert all(torch.equal(value, expected[name]) for name, value in weights(tmp_path / "out").items())


def test_no_room_in_the_cache_is_one_line(
    small_clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = short(tmp_path, small_clip_folder, "--cache", tmp_path / "cache", "--precompute")
    with room_for(4_096):
        assert run(arguments) == 2
    assert "Cannot write teacher embeddings to" in capsys.readouterr().err
    assert run(arguments) == 0


@pytest.mark.parametrize("folder", ["file/run", "/proc/closeup-run", "/sys/closeup-run"])
def test_a_folder_that_nobody_can_write_is_one_error(folder: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("where the folder should be")
    place = tmp_path / folder  # an absolute one stands for itself
    if not place.parent.exists():
        pytest.skip(f"there is no {place.parent} here")
    with pytest.raises(CloseupError, match="Cannot write"):
        train(recipe(), CONFIG, place)
    assert not place.exists()


def test_an_unwritable_output_is_one_line(
    small_clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = short(tmp_path, small_clip_folder)
    arguments[arguments.index("--out") + 1] = str(tmp_path / "photos" / "0.png" / "out")
    assert run(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("closeup: error: ")
    assert said.count("\n") == 1
