"""What the README shows is run: its Python as it stands, its commands as far as their options."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from closeup.cli.main import VERBS
from closeup.cli.parse import parse

PROJECT = Path(__file__).resolve().parent.parent
README = (PROJECT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
COMMANDS = [line for _, text in BLOCKS for line in text.splitlines() if line.startswith("closeup ")]
MAKE = re.findall(r"^make (\w+)", "\n".join(text for _, text in BLOCKS), flags=re.MULTILINE)


@pytest.mark.parametrize("code", PYTHON)
def test_python_runs(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_can_be_read(line: str) -> None:
    _, verb, *words = shlex.split(line, comments=True)
    parse(importlib.import_module(VERBS[verb][0]).Options, f"closeup {verb}", words)


def test_make_targets_exist() -> None:
    targets = re.findall(r"^(\w+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert MAKE
    assert set(MAKE) <= set(targets)


def test_pictures_are_there() -> None:
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (PROJECT / path).is_file(), path
