"""Two processes must learn what one learns from the same global batch: gradients are really exchanged."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

SCRIPT = Path(__file__).with_name("train_on_many.py")


def run(recipe: str, folder: Path, processes: int) -> dict[str, Tensor]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={port}"]
    command = launch if processes > 1 else [sys.executable]
    ran = subprocess.run(
        [*command, str(SCRIPT), recipe, str(folder)], capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return load_file(folder / "weights.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["pretrain", "clipself"])
def test_two_processes_learn_what_one_learns(recipe: str, tmp_path: Path) -> None:
    alone, together = run(recipe, tmp_path / "one", 1), run(recipe, tmp_path / "two", 2)
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, atol=1e-5, rtol=0, msg=name)
