"""A trained mask proposer as a folder: the head's weights, and a card that names the CLIP and the words it knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from closeup.heads.folder import clip_of, fill, head_folder, read_head_card, write_head
from closeup.heads.maskformer import MaskFormer
from closeup.heads.maskformer_config import MaskFormerConfig
from closeup.models.clip import Clip, digest
from closeup.text import Vocabulary, build_bank

KINDS = {MaskFormer.kind: ("config", "words", "novel", "templates", "size")}
"""The kind of head, and what its card must say."""


@dataclass(frozen=True, slots=True, eq=False)
class MaskProposer:
    """A head, the CLIP below it, and what it was trained on.

    ``words`` are those that it learned from, ``novel`` marks the others of its protocol. ``size`` is the side of its
    canvas in pixels.
    """

    head: MaskFormer
    clip: Clip
    words: tuple[str, ...]
    novel: tuple[bool, ...]
    templates: str
    size: int
    name: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its weights, its settings, and the CLIP below it."""
        told = sorted(self.head.config.to_dict().items())
        return digest(self.head.state_dict(), (self.clip.fingerprint, told, self.size))

    @property
    def needs(self) -> dict[str, str]:
        """Nothing besides the CLIP."""
        return {}

    @property
    def outlines(self) -> bool:
        """Masks are all that it learns from."""
        return True

    def marks(self, names: Sequence[str]) -> list[bool]:
        """Return which of some words are new to the head: all that it did not learn."""
        known = {word.casefold() for word, new in zip(self.words, self.novel, strict=True) if not new}
        return [name.strip().casefold() not in known for name in names]


def new_mask_proposer(
    clip: Clip,
    words: Sequence[str],
    novel: Sequence[bool],
    *,
    templates: str,
    size: int,
    config: Mapping[str, Any],
) -> MaskProposer:
    """Return an untrained proposer of masks; the ``novel`` words are not to be learned."""
    bank = build_bank(clip, Vocabulary(words), templates=templates)
    head = MaskFormer(clip, bank.embeddings.to(clip.device), novel, MaskFormerConfig().replace(**config))
    return MaskProposer(head.to(clip.device), clip, tuple(words), tuple(novel), templates, size, "untrained")


def save_mask_proposer(
    proposer: MaskProposer,
    folder: str | Path,
    card: Mapping[str, Any] | None = None,
    *,
    dtype: Literal["fp32", "fp16"] = "fp32",
) -> Path:
    """Write a proposer; the CLIP is named and not copied. The folder appears whole or not at all.

    Raises:
        InputError: the folder holds something else.
    """
    told = {
        **(card or {}),
        "config": proposer.head.config.to_dict(),
        "words": proposer.words,
        "novel": proposer.novel,
        "templates": proposer.templates,
        "size": proposer.size,
    }
    return write_head(Path(folder), MaskFormer.kind, proposer.head, proposer.clip, told, dtype)


def load_mask_proposer(
    name: str | Path, *, device: str | torch.device = "auto", precision: str = "auto", clip: Clip | None = None
) -> MaskProposer:
    """Load a proposer in eval mode, with the CLIP that its card names, or the same one given as ``clip``.

    ``name`` is a folder, or the name of a proposer that ships.

    Raises:
        ModelError: there is no proposer, or the CLIP is another one than it was trained on.
    """
    folder = head_folder(name)
    card = read_head_card(folder, KINDS)
    clip = clip_of(card, folder, clip, device=device, precision=precision)
    how = {key: card[key] for key in ("templates", "size", "config")}
    made = new_mask_proposer(clip, card["words"], card["novel"], **how)
    fill(made.head, folder)
    return replace(made, name=str(name))
