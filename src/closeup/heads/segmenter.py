"""A trained CAT-Seg as a folder: its weights, those of the CLIP that learned, and a card with the words it knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from closeup.heads.catseg import CatSeg
from closeup.heads.catseg_config import CatSegConfig
from closeup.heads.trained import KEYS, TrainedHead, load_head, of_card
from closeup.models.clip import Clip
from closeup.text import get_templates
from closeup.text.names import clean_name


@dataclass(frozen=True, slots=True, eq=False)
class Segmenter(TrainedHead):
    """A CAT-Seg, and what it was trained on."""

    head: CatSeg

    @property
    def outlines(self) -> bool:
        """Label maps, or masks, are all that it learns from."""
        return True

    @property
    def paces(self) -> dict[str, float]:
        """The CLIP learns more slowly than the rest."""
        return {"clip_weights.": self.head.config.clip_pace} if len(self.head.clip_weights) else {}


def new_segmenter(
    clip: Clip,
    words: Sequence[str],
    novel: Sequence[bool],
    *,
    templates: str,
    size: int,
    config: Mapping[str, Any],
) -> Segmenter:
    """Return an untrained CAT-Seg; the ``novel`` words are not to be learned.

    Raises:
        ModelError: the tower is too short, or has no attention that could learn.
    """
    sentences = [get_templates(templates).fill(clean_name(word)) for word in words]
    head = CatSeg(clip, sentences, novel, CatSegConfig().replace(**config))
    return Segmenter(head.to(clip.device), clip, size, "untrained", tuple(words), tuple(novel), templates)


def load_segmenter(
    name: str | Path, *, device: str | torch.device = "auto", precision: str = "auto", clip: Clip | None = None
) -> Segmenter:
    """Load a CAT-Seg in eval mode, with the CLIP that its card names, or the same one given as ``clip``.

    ``name`` is a folder, or the name of one that ships.

    Raises:
        ModelError: there is none, or the CLIP is another one than it was trained on.
    """
    return load_head(name, {CatSeg.kind: KEYS}, _of_card, device=device, precision=precision, clip=clip)


def _of_card(clip: Clip, card: Mapping[str, Any]) -> Segmenter:
    return new_segmenter(clip, **of_card(card))
