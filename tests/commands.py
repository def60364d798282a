"""What tests of the command line share: a command's outcome, and photos on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image


class Ran(NamedTuple):
    """What a command did: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever a command tells
        return json.loads(self.out)


Run = Callable[..., Ran]
Write = Callable[[str, object], Path]


def write_photo(path: Path, size: tuple[int, int] = (48, 64), seed: int = 0) -> Path:
    """Write a picture of ``(height, width)`` with a red left and a noisy right half."""
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    pixels[:, : size[1] // 2] = (200, 30, 30)
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)
    return path


def files_below(folder: Path) -> list[str]:
    """Return the files below a folder, hidden ones too."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
