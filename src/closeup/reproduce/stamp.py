"""The command, commit, versions and machine behind a table."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from closeup.reproduce.result import Stamp

PARTS = ("closeup", "torch", "open_clip_torch")
"""The distributions whose versions can change a figure."""


def stamp(command: str) -> Stamp:
    """Return what makes a table now, by that command."""
    return Stamp(
        command=command,
        commit=commit(),
        versions={name: version(name) for name in PARTS},
        machine=machine(),
        date=datetime.now(UTC).date().isoformat(),
    )


def commit() -> str | None:
    """Return the commit of the source tree that runs, ``+`` added where it was changed since; None outside of one."""
    here = Path(__file__).resolve().parent
    found = _git("rev-parse", "--short=12", "HEAD", at=here)
    if found is None or _git("ls-files", "--error-unmatch", __file__, at=here) is None:
        return None
    return found + ("+" if _git("status", "--porcelain", "--", str(here.parent), at=here) else "")


def machine() -> str:
    """Return the device in a few words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{platform.machine()} CPU, {threads} thread{'s' if threads > 1 else ''}"


def _git(*arguments: str, at: Path) -> str | None:
    try:
        ran = subprocess.run(["git", *arguments], cwd=at, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return ran.stdout.strip()
