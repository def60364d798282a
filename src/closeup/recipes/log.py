"""The log of a training: one JSON object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            known = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
            kept = [line for line in known if json.loads(line)["step"] <= start] if start else []
            path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
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
