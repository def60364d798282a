"""What every report has: its content as plain values, as JSON text, and as a file."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from closeup.data.atomic import write_json


class Report(ABC):
    """What an evaluation found."""

    __slots__ = ()

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, fit for JSON."""

    def to_json(self) -> str:
        """Return the same as JSON text."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    def save(self, path: str | Path) -> Path:
        """Write the JSON, whole or not at all, and return the path."""
        path = Path(path).expanduser()
        write_json(path, self.to_dict())
        return path
