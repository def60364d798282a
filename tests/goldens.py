"""Reads the numeric goldens: inputs, weights and outputs of the papers' official code on tiny random models."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

PROJECT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("CLOSEUP_SHARED", PROJECT.parent / "shared"))
SEARCHED = [PROJECT / "tests" / "data" / "goldens", SHARED / "goldens"]


@dataclass(frozen=True)
class Golden:
    """One file of one case; arrays come as tensors of the type that the file's notes name."""

    path: Path

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.path) as stored:
            return {name: stored[name] for name in stored.files}

    @cached_property
    def meta(self) -> dict[str, Any]:
        return dict(json.loads(str(self.arrays["meta"])))

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.meta["config"])

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def __getitem__(self, name: str) -> Tensor:
        cast = self.meta["tensors"].get(name, {}).get("cast", "float32")
        return torch.from_numpy(self.arrays[name]).to(getattr(torch, cast))

    def names(self, prefix: str) -> list[str]:
        return [name.removeprefix(prefix) for name in self.arrays if name.startswith(prefix)]

    def weights(self, prefix: str = "w/") -> dict[str, Tensor]:
        return {name: self[prefix + name] for name in self.names(prefix)}


def cases(name: str) -> list[Any]:
    """Return pytest parameters for every file of a case, or one that skips with the reason."""
    found: dict[str, Path] = {}
    for folder in SEARCHED:
        for path in sorted(folder.glob(f"{name}*.npz")):
            found.setdefault(path.name, path)
    if not found:
        reason = f"no golden {name}*.npz in {' or '.join(map(str, SEARCHED))}"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="absent")]
    return [pytest.param(Golden(path), id=path.stem) for path in found.values()]


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-4) -> None:
    """Hold ``max|a - b| <= tolerance * max|b|``, the rule of the goldens; NaN and inf at the same places."""
    assert ours.shape == theirs.shape, f"shape {tuple(ours.shape)} is not {tuple(theirs.shape)}"
    if not theirs.is_floating_point():
        assert torch.equal(ours, theirs)
        return
    scale = float(theirs[theirs.isfinite()].abs().max()) if theirs.isfinite().any() else 1.0
    torch.testing.assert_close(ours.float(), theirs, rtol=0.0, atol=tolerance * scale, equal_nan=True)
