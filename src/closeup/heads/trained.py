"""A trained head: the network, the CLIP below it, and the words that it learned if there are any; as a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from closeup.heads.folder import write_head
from closeup.models.clip import Clip, digest

KEYS = ("config", "words", "novel", "templates", "size")
"""What the card of a head for words must say."""


@dataclass(frozen=True, slots=True, eq=False)
class StandingHead:
    """A head and the CLIP below it; ``size`` is the side of its canvas in pixels."""

    head: Any
    """The network, of a type that each kind narrows: a module with a ``config``."""
    clip: Clip
    size: int
    name: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its weights, its settings, and the CLIP below it."""
        told = sorted(self.head.config.to_dict().items())
        return digest(self.head.state_dict(), (self.clip.fingerprint, told, self.size))

    @property
    def needs(self) -> dict[str, str]:
        """Fingerprints of what it stands on besides the CLIP, by name."""
        return {}

    @property
    def outlines(self) -> bool:
        """Whether it learns from masks."""
        return False

    @property
    def paces(self) -> dict[str, float]:
        """Factors on the rate by the beginnings of parameters' names; 1 for all others."""
        return {}


@dataclass(frozen=True, slots=True, eq=False)
class TrainedHead(StandingHead):
    """A head for words, and what it was trained on.

    ``words`` are those that it learned from, ``novel`` marks the others of its protocol. Its network has a ``kind``.
    """

    words: tuple[str, ...]
    novel: tuple[bool, ...]
    templates: str

    def marks(self, names: Sequence[str]) -> list[bool]:
        """Return which of some words are new to the head: all that it did not learn."""
        known = {word.casefold() for word, new in zip(self.words, self.novel, strict=True) if not new}
        return [name.strip().casefold() not in known for name in names]


def save_head(
    trained: TrainedHead,
    folder: str | Path,
    card: Mapping[str, Any] | None = None,
    *,
    dtype: Literal["fp32", "fp16"] = "fp32",
) -> Path:
    """Write a head; the CLIP is named and not copied. The folder appears whole or not at all.

    Raises:
        InputError: the folder holds something else.
    """
    told = {name: getattr(trained, name) for name in ("words", "novel", "templates", "size")}
    told = {**(card or {}), "config": trained.head.config.to_dict(), **told}
    return write_head(Path(folder), trained.head.kind, trained.head, trained.clip, told, dtype)
