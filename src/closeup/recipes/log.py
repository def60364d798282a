"""The log of a training: one JSON object a line."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from closeup.data.atomic import replacing
from closeup.errors import CloseupError

LOG = "log.jsonl"
"""The name of the log in the folder of a training."""


class TrainingLog:
    """Appends lines; a resumed training first drops the lines of steps that it will make again.

    Raises:
        CloseupError: the file cannot be written.
    """

    def __init__(self, path: Path, start: int) -> None:
        self._path = path
        kept = [line for line in read_log(path) if line["step"] <= start] if start else []
        try:
            with replacing(path) as fresh:
                fresh.write_text("".join(f"{json.dumps(line)}\n" for line in kept), encoding="utf-8")
        except OSError as error:
            raise self._unwritable(error) from error

    def write(self, figures: dict[str, Any]) -> None:
        """Append one line, floats rounded to six decimals."""
        rounded = {name: round(value, 6) if isinstance(value, float) else value for name, value in figures.items()}
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rounded) + "\n")
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> CloseupError:
        return CloseupError(
            f"Cannot write the log {str(self._path)!r}: {error.strerror or error}. "
            "Free some space or choose another folder, then resume."
        )


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log, none where there is no log; what a kill has left half written is passed over."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(text))
    return lines
