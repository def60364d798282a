"""A training that is killed, whenever that is, and resumed ends where it would have ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from small_runs import run, saved_step, start, wait_until, weights, words

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def uninterrupted(small_clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    folder = tmp_path_factory.mktemp("whole")
    assert run(words(folder, small_clip_folder, "out")) == 0
    return weights(folder / "out")


def end(process: subprocess.Popen[str], how: signal.Signals) -> str:
    os.killpg(process.pid, how)
    return process.communicate()[1]


def assert_resumes(folder: Path, model: Path, expected: dict[str, Tensor]) -> None:
    assert run(words(folder, model, "out", "--resume")) == 0
    resumed = weights(folder / "out")
    assert all(torch.equal(value, expected[name]) for name, value in resumed.items())
    kept = sorted(path.name for path in (folder / "out-run").iterdir())
    assert kept == ["card.json", "log.jsonl", "state-00000060", "state.json"], "and nothing else"


def test_killed_while_it_learns(small_clip_folder: Path, tmp_path: Path, uninterrupted: dict[str, Tensor]) -> None:
    process = start(words(tmp_path, small_clip_folder, "out"))
    wait_until(lambda: saved_step(tmp_path / "out-run") >= 3, process)
    end(process, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, "it was over before"
    assert not (tmp_path / "out").exists()
    assert_resumes(tmp_path, small_clip_folder, uninterrupted)


def test_killed_while_it_saves(small_clip_folder: Path, tmp_path: Path, uninterrupted: dict[str, Tensor]) -> None:
    process = start(words(tmp_path, small_clip_folder, "out"))
    wait_until(lambda: saved_step(tmp_path / "out-run") >= 3, process)
    end(process, signal.SIGKILL)
    last = saved_step(tmp_path / "out-run")
    # What it saves first when it goes on; every save clears away what is not its own.
    unfinished = tmp_path / "out-run" / f"state-{last + 1:08d}"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    os.mkfifo(unfinished / "optimizers.pt")  # a pipe that nobody reads: whoever writes to it waits
    process = start(words(tmp_path, small_clip_folder, "out", "--resume"))
    wait_until((unfinished / "module.safetensors").exists, process)
    end(process, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert saved_step(tmp_path / "out-run") == last
    (unfinished / "optimizers.pt").unlink()
    with (tmp_path / "out-run" / "log.jsonl").open("a") as log:
        log.write('{"step": 60, "lo')
    assert_resumes(tmp_path, small_clip_folder, uninterrupted)


def test_ctrl_c_saves_though_it_reaches_the_workers_too(
    small_clip_folder: Path, tmp_path: Path, uninterrupted: dict[str, Tensor]
) -> None:
    process = start(words(tmp_path, small_clip_folder, "out", "--workers", "1", "--save-every", "4"))
    wait_until(lambda: saved_step(tmp_path / "out-run") >= 4, process)
    said = end(process, signal.SIGINT)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert 4 <= saved_step(tmp_path / "out-run") < 60
    assert_resumes(tmp_path, small_clip_folder, uninterrupted)
