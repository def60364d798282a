"""Short trainings by the command line that the tests of kills and of full disks break off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from closeup.cli.main import main
from commands import write_photo

PATIENCE = 120.0
"""Seconds that something on a slow machine may take before it counts as not happening."""


def words(folder: Path, model: Path, out: str, *more: object) -> list[str]:
    """Return the options of a short ``closeup adapt clipself`` on three photos in ``folder``."""
    photos = folder / "photos"
    if not photos.exists():
        for seed, size in enumerate(((48, 64), (64, 48), (40, 40))):
            write_photo(photos / f"{seed}.png", size, seed)
    options = {"images": photos, "model": model, "out": folder / out, "report": "none", "rate": "1e-2"}
    options |= {"size": 64, "steps": 60, "batch-size": 2, "save-every": 1, "workers": 0, "precision": "fp32"}
    named = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    return ["adapt", "clipself", *named, *map(str, more)]


def run(arguments: list[str]) -> int:
    """Run a command in this process."""
    return main(arguments)


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """Start a command in a process and a group of its own, with as many threads as there are here."""
    return subprocess.Popen(
        [sys.executable, "-m", "closeup", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for something that a process does; AssertionError where it ends or the time is up before."""
    until = time.monotonic() + PATIENCE
    while not happened():
        assert process.poll() is None, f"ended with {process.returncode}: {process.communicate()[1][-2000:]}"
        assert time.monotonic() < until, "it does not happen"
        time.sleep(0.002)


def saved_step(folder: Path) -> int:
    """Return the step of the state in a folder, 0 where there is none."""
    pointer = folder / "state.json"
    return int(json.loads(pointer.read_text())["step"]) if pointer.exists() else 0


def weights(folder: Path) -> dict[str, Tensor]:
    """Return the weights of a finished model."""
    return load_file(folder / "open_clip_model.safetensors")
