"""Photos, words and regions on disk, and the command run in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image
import pytest


class Ran(NamedTuple):
    """What a command did: its exit code and what it printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def closeup(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process; words that are no text become text."""
    from closeup.cli.main import main

    def run(*words: object) -> Ran:
        code = main([str(word) for word in words])
        return Ran(code, *capsys.readouterr())

    return run


def write_photo(path: Path, size: tuple[int, int] = (48, 64), seed: int = 0) -> Path:
    """Write a picture of ``(height, width)`` with a red left and a noisy right half."""
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    pixels[:, : size[1] // 2] = (200, 30, 30)
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return write_photo(tmp_path / "photo.png")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of three pictures of different sizes, one of them below another folder."""
    folder = tmp_path / "photos"
    write_photo(folder / "a.png", (48, 64), 1)
    write_photo(folder / "b.jpg", (64, 48), 2)
    write_photo(folder / "deep" / "a.png", (40, 40), 3)
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write text, or anything else as json, into a file and return its path."""

    def write(name: str, content: object) -> Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write
