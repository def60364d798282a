"""Two processes must learn what one learns from the same global batch: gradients are really exchanged."""

from __future__ import annotations

import socket
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

SCRIPT = Path(__file__).with_name("train_on_many.py")

pytestmark = pytest.mark.slow


class Runs:
    """What a recipe's script left in a folder, run in one process or in two, each once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ran = lru_cache(self._run)

    def _run(self, recipe: str, processes: int) -> Path:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        launch = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={port}"]
        folder = self.folder / f"{recipe}-{processes}"
        command = [sys.executable, *(launch if processes > 1 else []), str(SCRIPT), recipe, str(folder)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert ran.returncode == 0, ran.stderr[-3000:]
        return folder

    def read(self, recipe: str, processes: int, name: str, rank: int = 0) -> dict[str, Tensor]:
        return load_file(self.ran(recipe, processes) / f"{name}-{rank}.safetensors")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor], atol: float) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, atol=atol, rtol=0, msg=name)


def farthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((value - other[name]).abs().max()) for name, value in one.items())


@pytest.mark.parametrize(
    "recipe", ["pretrain", "clipself", "regionclip", "finegrained-pairs", "finegrained", "finegrained-levels"]
)
def test_two_processes_learn_what_one_learns(recipe: str, runs: Runs) -> None:
    first, second = (runs.read(recipe, 2, "weights", rank) for rank in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert_close(runs.read(recipe, 1, "weights"), first, atol=1e-5)


def test_gradients_are_exchanged_by_the_wrapper_and_by_nothing_else(runs: Runs) -> None:
    """Calling the module inside the data-parallel wrapper, as the official code does, leaves each process alone."""
    whole = runs.read("clipself", 1, "through")
    largest = max(float(value.abs().max()) for value in whole.values())
    first, second = (runs.read("clipself", 2, "through", rank) for rank in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert_close(whole, first, atol=1e-5 * largest)
    alone, other = (runs.read("clipself", 2, "around", rank) for rank in range(2))
    assert farthest(alone, other) > 0.1 * largest
    assert farthest(alone, whole) > 0.05 * largest
