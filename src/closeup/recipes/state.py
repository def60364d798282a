"""Training state on disk: always one whole checkpoint there, whenever the process is killed."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from closeup.errors import CloseupError, DataError
from closeup.models.disk import write_objects, write_tensors

_POINTER = "state.json"
_SCALER = "scaler.pt"


@dataclass(frozen=True, slots=True)
class SavedState:
    """Where training stands: steps done, and the configuration that made them."""

    step: int
    config: dict[str, Any]


def save_state(
    folder: Path,
    module: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    state: SavedState,
    *,
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """Write weights, optimiser and step beside the last state, then point to them, then drop the last one.

    ``scaler`` is what scales the loss in fp16, if anything does.

    Raises:
        CloseupError: the disk is full or the folder cannot be written; the last state stays as it was.
    """
    fresh = folder / f"state-{state.step:08d}"
    pointer = folder / f"{_POINTER}.new"
    try:
        fresh.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.detach().contiguous().cpu() for name, value in module.state_dict().items()}
        write_tensors(_unshared(tensors), fresh / "module.safetensors")
        write_objects([optimizer.state_dict() for optimizer in optimizers], fresh / "optimizers.pt")
        if scaler is not None:
            write_objects(scaler.state_dict(), fresh / _SCALER)
        pointer.write_text(json.dumps({"folder": fresh.name, "step": state.step, "config": state.config}, indent=1))
        pointer.replace(folder / _POINTER)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        with contextlib.suppress(OSError):
            pointer.unlink(missing_ok=True)
        raise CloseupError(
            f"Cannot write the checkpoint of step {state.step} to {folder}: {error.strerror or error}. "
            "The last good checkpoint is untouched; free some space or choose another folder, then resume."
        ) from error
    for old in folder.glob("state-*"):
        if old.is_dir() and old.name != fresh.name:
            shutil.rmtree(old, ignore_errors=True)


def has_state(folder: Path) -> bool:
    """Tell whether a state was saved in the folder."""
    return (folder / _POINTER).is_file()


def load_state(
    folder: Path,
    module: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    *,
    scaler: torch.amp.GradScaler | None = None,
) -> SavedState:
    """Read the last state into a module, its optimisers and, if there is one and one was saved, the loss's scaler.

    Raises:
        DataError: there is no state in the folder, or it cannot be read.
    """
    if not has_state(folder):
        raise DataError(f"No training state in {folder}: there is nothing to resume. Start without --resume.")
    try:
        saved = json.loads((folder / _POINTER).read_text())
        place = folder / saved["folder"]
        module.load_state_dict(load_file(place / "module.safetensors"), strict=False)
        states = torch.load(place / "optimizers.pt", weights_only=True, map_location="cpu")
        for optimizer, state in zip(optimizers, states, strict=True):
            optimizer.load_state_dict(state)
        if scaler is not None and (place / _SCALER).exists():
            scaler.load_state_dict(torch.load(place / _SCALER, weights_only=True))
    except Exception as error:  # a torn file makes its reader fail in any way
        raise DataError(f"The training state in {folder} cannot be read: {error}. Start without --resume.") from error
    return SavedState(saved["step"], saved["config"])


def _unshared(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    seen: dict[int, str] = {}
    return {name: value for name, value in tensors.items() if seen.setdefault(value.data_ptr(), name) == name}
