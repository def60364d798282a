"""The package root: what it offers, and that it costs nothing to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import closeup

SPEAKS_OF = (
    "/wo" + "rk/",
    "/ro" + "ot/",
    "py" + "pi.org",
    "pythonho" + "sted",
)


def test_every_public_name_is_there() -> None:
    for name in closeup.__all__:
        assert getattr(closeup, name) is not None
    assert set(closeup.__all__) <= set(dir(closeup))


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(AttributeError, match="it has CatSegScorer, Clip, CloseupError"):
        _ = closeup.lod


def test_import_loads_no_torch() -> None:
    code = "import sys, closeup; print('torch' in sys.modules or 'numpy' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_the_project_speaks_of_itself_alone() -> None:
    project = Path(__file__).resolve().parent.parent
    listed = subprocess.run(["git", "ls-files"], cwd=project, capture_output=True, text=True, check=False).stdout
    if not listed:
        pytest.skip("not a git checkout, so which files belong to the project is not known")
    for name in listed.splitlines():
        path = project / name
        if path.suffix in {".py", ".md", ".toml", ".txt", ".json", ".yaml", ""} and path.is_file():
            text = path.read_text(encoding="utf-8")
            assert not [word for word in SPEAKS_OF if word in text], name
