"""A trained mask proposer as a folder: the head's weights, and a card that names the CLIP and the words it knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from closeup.heads.maskformer import MaskFormer
from closeup.heads.maskformer_config import MaskFormerConfig
from closeup.heads.trained import KEYS, TrainedHead, load_head, of_card
from closeup.models.clip import Clip
from closeup.text import Vocabulary, build_bank


@dataclass(frozen=True, slots=True, eq=False)
class MaskProposer(TrainedHead):
    """A MaskFormer, and what it was trained on."""

    head: MaskFormer

    @property
    def outlines(self) -> bool:
        """Masks are all that it learns from."""
        return True


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
    return MaskProposer(head.to(clip.device), clip, size, "untrained", tuple(words), tuple(novel), templates)


def load_mask_proposer(
    name: str | Path, *, device: str | torch.device = "auto", precision: str = "auto", clip: Clip | None = None
) -> MaskProposer:
    """Load a proposer in eval mode, with the CLIP that its card names, or the same one given as ``clip``.

    ``name`` is a folder, or the name of a proposer that ships.

    Raises:
        ModelError: there is no proposer, or the CLIP is another one than it was trained on.
    """
    return load_head(name, {MaskFormer.kind: KEYS}, _of_card, device=device, precision=precision, clip=clip)


def _of_card(clip: Clip, card: Mapping[str, Any]) -> MaskProposer:
    return new_mask_proposer(clip, **of_card(card))
