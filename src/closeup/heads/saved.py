"""A trained detector as a folder: the head's weights, and a card that names the CLIP and the words it knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from closeup._types import Embeddings, Labels
from closeup.heads.folder import clip_of, fill, read_head_card, write_head
from closeup.heads.fvit import FVit
from closeup.heads.fvit_config import FVitConfig
from closeup.models.clip import Clip
from closeup.text import TextBank, Vocabulary, build_bank

BACKGROUND = "background"
"""The word for whatever is no object; it comes after all others."""

KIND = "fvit"
KEYS = ("config", "words", "novel", "templates", "size")


@dataclass(frozen=True, slots=True, eq=False)
class Detector:
    """A head, the CLIP below it, and what it was trained on.

    ``words`` are those that it learned from, ``novel`` marks the others of its protocol. ``size`` is the side of its
    canvas in pixels.
    """

    head: FVit
    clip: Clip
    words: tuple[str, ...]
    novel: tuple[bool, ...]
    templates: str
    size: int
    name: str
    _backgrounds: dict[tuple[str, str], Embeddings] = field(default_factory=dict, repr=False)

    def rows(self, bank: TextBank) -> tuple[Embeddings, Labels]:
        """Return the rows of a bank with the background's as the last, and the word of each; embedded once."""
        key = bank.templates, bank.mean
        if key not in self._backgrounds:
            self._backgrounds[key] = _background(self.clip, *key)
        return _joined(bank, self._backgrounds[key])

    def marks(self, names: Sequence[str]) -> list[bool]:
        """Return which of some words are new to the head: all that it did not learn."""
        known = {word.casefold() for word, new in zip(self.words, self.novel, strict=True) if not new}
        return [name.strip().casefold() not in known for name in names]


def new_detector(
    clip: Clip,
    words: Sequence[str],
    novel: Sequence[bool],
    *,
    templates: str,
    size: int,
    config: Mapping[str, Any],
) -> Detector:
    """Return an untrained detector of words, of which the ``novel`` ones are not to be learned."""
    bank = build_bank(clip, Vocabulary(words), templates=templates)
    rows, _ = _joined(bank, _background(clip, bank.templates, bank.mean))
    head = FVit(clip, rows.to(clip.device), novel, FVitConfig().replace(**config))
    return Detector(head.to(clip.device), clip, tuple(words), tuple(novel), templates, size, "untrained")


def save_detector(
    detector: Detector,
    folder: str | Path,
    card: Mapping[str, Any] | None = None,
    *,
    dtype: Literal["fp32", "fp16"] = "fp32",
) -> Path:
    """Write a detector; the CLIP is named and not copied. The folder appears whole or not at all.

    Raises:
        InputError: the folder holds something else.
    """
    told = {
        **(card or {}),
        "config": detector.head.config.to_dict(),
        "words": detector.words,
        "novel": detector.novel,
        "templates": detector.templates,
        "size": detector.size,
    }
    return write_head(Path(folder), KIND, detector.head, detector.clip, told, dtype)


def load_detector(
    folder: str | Path, *, device: str | torch.device = "auto", precision: str = "auto", clip: Clip | None = None
) -> Detector:
    """Load a detector in eval mode, with the CLIP that its card names, or the same one given as ``clip``.

    Raises:
        ModelError: there is no detector, or the CLIP is another one than it was trained on.
    """
    folder = Path(folder)
    card = read_head_card(folder, KIND, KEYS)
    clip = clip_of(card, folder, clip, device=device, precision=precision)
    words, novel, how = card["words"], card["novel"], {key: card[key] for key in ("templates", "size", "config")}
    made = new_detector(clip, words, novel, **how)
    fill(made.head, folder)
    return replace(made, name=str(folder))


def _background(clip: Clip, templates: str, mean: str) -> Embeddings:
    return build_bank(clip, Vocabulary([BACKGROUND]), templates=templates, mean=mean).embeddings


def _joined(bank: TextBank, background: Float[Tensor, "1 dim"]) -> tuple[Embeddings, Labels]:
    rows = torch.cat([bank.embeddings, background.to(bank.embeddings)])
    return rows, torch.cat([bank.owner, bank.owner.new_tensor([len(bank)])])
