from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest

from closeup.cli import choices, models, world
from closeup.cli.main import VERBS, main
from closeup.cli.parse import parse
from closeup.errors import InputError
from closeup.match.matchers import KINDS
from closeup.models import precision
from closeup.models.encode_regions import ENCODERS
from closeup.predict.heatmap import CONTRASTS
from closeup.predict.pixels import MODES
from closeup.predict.prepare_regions import PREPROCESSING
from commands import Run

SOURCE = Path(models.__file__).parents[2]
PARTS = {"world": ("show", "export"), "evaluate": ("regions", "segmentation", "forgetting"), "adapt": ("clipself",)}


def apart(*words: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command, or some code, in a process of its own."""
    start = [sys.executable, "-c", code] if code else [sys.executable, "-m", "closeup"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.run([*start, *words], capture_output=True, text=True, env=environment, timeout=300, check=False)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_verb(closeup: Run, words: Sequence[str]) -> None:
    ran = closeup(*words)
    assert ran.code == 0
    for verb, (_, summary) in VERBS.items():
        assert f"  {verb} " in ran.out
        assert summary in ran.out


def test_help_and_version_need_neither_torch_nor_numpy() -> None:
    ran = apart(
        code="import sys; from closeup.cli.main import main; main(['--help']); main(['--version']); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'open_clip')))"
    )
    assert ran.returncode == 0, ran.stderr


def test_module_runs_as_a_program() -> None:
    ran = apart("modles")
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr == "closeup: error: Unknown verb 'modles'. Did you mean 'models'? All of them: closeup --help.\n"


def test_version(closeup: Run) -> None:
    assert closeup("--version").out.startswith("closeup ")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_options_that_teach(closeup: Run, verb: str) -> None:
    module = importlib.import_module(VERBS[verb][0])
    assert callable(module.run)
    ran = closeup(verb, "--help")
    assert ran.code == 0
    assert f"usage: closeup {verb}" in ran.out
    assert ran.err == ""


@pytest.mark.parametrize(
    "words",
    [
        ["segment"],
        ["classify"],
        ["heatmap"],
        ["models"],
        ["blend"],
        *([verb, part] for verb, parts in PARTS.items() for part in parts),
    ],
)
def test_help_shows_two_commands_or_three(closeup: Run, words: Sequence[str]) -> None:
    told = closeup(*words, "--help").out
    lines = [line.strip() for line in told.splitlines()]
    start = f"closeup {' '.join(words)}"
    assert sum(line == start or line.startswith(f"{start} ") for line in lines) >= 2
    for nothing in ("None", "False", ")"):
        assert f"default: {nothing}" not in " ".join(told.replace("│", " ").split())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["segment", "a.png"], "--words"),
        (["segment", "a.png", "--words", "dog", "--wrong", "3"], "--wrong"),
        (["segment", "a.png", "--words", "dog", "--size", "big"], "big"),
        (["segment", "a.png", "--words"], "--words"),
        (["segment", "a.png", "--words", "dog", "--upsample", "cubic"], "cubic"),
        (["world"], "show"),
        (["world", "shrink"], "shrink"),
    ],
)
def test_a_command_line_that_cannot_be_read_is_one_line(closeup: Run, words: Sequence[str], told: str) -> None:
    ran = closeup(*words)
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.startswith("closeup: error: ")
    assert ran.err.count("\n") == 1
    assert told in ran.err
    assert f"closeup {words[0]}" in ran.err
    assert not set(ran.err) & set("╭│─╰")


def test_choices_are_those_of_the_library() -> None:
    assert get_args(choices.Encoder) == ENCODERS
    assert get_args(choices.Upsample) == MODES
    assert get_args(choices.Contrast) == CONTRASTS
    assert get_args(choices.Canvas) == tuple(PREPROCESSING)
    assert get_args(choices.MatcherKind) == KINDS
    assert get_args(choices.Precision) == get_args(precision.Precision)


def test_options_are_built_from_words() -> None:
    shown = parse(world.Options, "closeup world", ["show", "--count", "2", "--truth"])
    assert shown == world.Show(count=2, truth=True)
    with pytest.raises(InputError, match="--count"):
        parse(world.Options, "closeup world", ["show", "--count", "two"])


def test_ctrl_c_is_one_line_and_130(closeup: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(options: models.Options) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "run", interrupt)
    ran = closeup("models")
    assert ran.code == 130
    assert ran.err.count("\n") == 1


def test_an_error_of_the_system_names_the_file(closeup: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(options: models.Options) -> int:
        raise OSError(28, "No space left on device", "out/a.png")

    monkeypatch.setattr(models, "run", fail)
    ran = closeup("models")
    assert (ran.code, ran.err) == (2, "closeup: error: out/a.png: No space left on device.\n")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of a POSIX shell")
def test_a_reader_that_leaves_early_is_no_error() -> None:
    ran = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m closeup models --json | head -n 1; exit 0"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        timeout=300,
        check=False,
    )
    assert ran.stdout == "{\n"
    assert ran.stderr == ""


def test_main_reads_the_process_arguments(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["closeup", "--version"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("closeup ")
