"""Photos, words and regions on disk, and the command run in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from closeup.cli.main import main
from commands import Ran, Run, Write, write_photo


@pytest.fixture
def closeup(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process and in the test's own folder; arguments that are no text become text."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> Ran:
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return write_photo(tmp_path / "photo.png")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of three pictures of different sizes, one of them in a folder of its own."""
    folder = tmp_path / "photos"
    write_photo(folder / "a.png", (48, 64), 1)
    write_photo(folder / "b.jpg", (64, 48), 2)
    write_photo(folder / "deep" / "a.png", (40, 40), 3)
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write text, or anything else as json, into a file and return its path."""

    def written(name: str, content: object) -> Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return written
