"""A trained head: the network, the CLIP below it, and the words that it learned if there are any; as a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from closeup.heads.folder import clip_of, fill, head_folder, read_head_card, write_head
from closeup.models.clip import Clip, digest

KEYS = ("config", "words", "novel", "templates", "size")
"""What the card of a head for words must say."""


@dataclass(frozen=True, slots=True, eq=False)
class StandingHead:
    """A head and the CLIP below it; ``size`` is the side of its canvas in pixels."""

    head: Any
    """The network, of a type that each kind narrows: a module with a ``kind`` and a ``config``."""
    clip: Clip
    size: int
    name: str
    _digests: dict[str, str] = field(default_factory=dict, repr=False, kw_only=True)
    """The last fingerprint, by the settings, where the weights are and how often they were written to."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its weights, its settings, and the CLIP below it."""
        state = self.head.state_dict()
        told = (self.clip.fingerprint, sorted(self.head.config.to_dict().items()), self.size)
        versions = [number for tensor in state.values() for number in (tensor.data_ptr(), tensor._version)]
        key = repr((told, versions))
        if key not in self._digests:
            self._digests.clear()
            self._digests[key] = digest(state, told)
        return self._digests[key]

    @property
    def eyes(self) -> Clip:
        """The model that pictures are prepared for."""
        return self.clip

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

    ``words`` are those that it learned from, ``novel`` marks the others of its protocol.
    """

    words: tuple[str, ...]
    novel: tuple[bool, ...]
    templates: str

    def marks(self, names: Sequence[str]) -> list[bool]:
        """Return which of some words are new to the head: all that it did not learn."""
        known = {word.casefold() for word, new in zip(self.words, self.novel, strict=True) if not new}
        return [name.strip().casefold() not in known for name in names]


Standing = TypeVar("Standing", bound=StandingHead)


def save_head(
    standing: StandingHead,
    folder: str | Path,
    card: Mapping[str, Any] | None = None,
    *,
    dtype: Literal["fp32", "fp16"] = "fp32",
) -> Path:
    """Write a head; the CLIP is named and not copied. The folder appears whole or not at all.

    Raises:
        InputError: the folder holds something else.
    """
    keys = ("words", "novel", "templates", "size") if isinstance(standing, TrainedHead) else ("size",)
    told = {"config": standing.head.config.to_dict(), **{name: getattr(standing, name) for name in keys}}
    return write_head(Path(folder), standing.head.kind, standing.head, standing.clip, {**(card or {}), **told}, dtype)


def load_head(
    name: str | Path,
    kinds: Mapping[str, Sequence[str]],
    make: Callable[[Clip, Mapping[str, Any]], Standing],
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
    clip: Clip | None = None,
) -> Standing:
    """Load a head of one of some kinds in eval mode, with the CLIP that its card names, or the same one given.

    ``name`` is a folder, or the name of a head that ships; ``make`` makes an untrained one from a CLIP and a card.

    Raises:
        ModelError: there is none, or the CLIP is another one than it was trained on.
    """
    folder = head_folder(name)
    card = read_head_card(folder, kinds)
    made = make(clip_of(card, folder, clip, device=device, precision=precision), card)
    fill(made.head, folder)
    return replace(made, name=str(name))


def of_card(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a card says of a head for words, as it is made from."""
    return {name: card[name] for name in KEYS}
