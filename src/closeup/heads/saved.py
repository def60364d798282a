"""A trained detector as a folder: the head's weights, and a card that names the CLIP and the words it knows.

F-ViT and RegionCLIP's detector are alike from outside: they find boxes of any words. DenseCLIP's (``dense_detector``)
knows its own words alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from closeup._types import Embeddings, Images, Labels
from closeup.heads.c4 import C4
from closeup.heads.c4_config import C4Config
from closeup.heads.dense_detector import DenseDetector, load_dense_detector
from closeup.heads.dense_predictor import KEYS_OF_PREDICTORS
from closeup.heads.denseclip_detection import DenseClipDetector
from closeup.heads.folder import clip_of, fill, head_folder, read_head_card
from closeup.heads.fvit import FVit
from closeup.heads.fvit_config import FVitConfig
from closeup.heads.needed_proposer import load_beside, proposer_card, proposer_of
from closeup.heads.regions import Sizes
from closeup.heads.rpn import Proposer
from closeup.heads.trained import KEYS, TrainedHead, save_head
from closeup.match.detections import Detections, Suppression
from closeup.models.clip import Clip
from closeup.text import TextBank, Vocabulary, build_bank

KINDS = {FVit.kind: KEYS, C4.kind: (*KEYS, "proposer"), DenseClipDetector.kind: KEYS_OF_PREDICTORS}
"""The kinds of detectors, and what a card must say of each."""


@dataclass(frozen=True, slots=True, eq=False)
class Detector(TrainedHead):
    """An F-ViT or RegionCLIP's detector, and what it was trained on."""

    head: FVit | C4
    _backgrounds: dict[tuple[str, str], Embeddings] = field(default_factory=dict, repr=False)

    def rows(self, bank: TextBank) -> tuple[Embeddings, Labels]:
        """Return the rows of a bank with the background's as the last, and the word of each; embedded once."""
        if self.head.background is None:
            return _joined(bank, _nothing(bank))
        key = bank.templates, bank.mean
        if key not in self._backgrounds:
            self._backgrounds[key] = _background(self.clip, *key)
        return _joined(bank, self._backgrounds[key])

    def find(
        self,
        images: Images,
        sizes: Sizes,
        bank: TextBank,
        *,
        threshold: float,
        limit: int,
        suppression: Suppression | None = None,
    ) -> list[Detections]:
        """Return what is found in each picture among the words of a bank, boxes in pixels of the canvas."""
        rows, owner = self.rows(bank)
        return self.head.detect(
            images,
            sizes,
            rows.to(images.device),
            self.marks(bank.names),
            owner=owner.to(images.device),
            threshold=threshold,
            limit=limit,
            suppression=suppression,
        )

    @property
    def outlines(self) -> bool:
        """Whether it outlines things, and learns from masks."""
        return self.head.outlines

    @property
    def needs(self) -> dict[str, str]:
        """Fingerprints of what it stands on besides the CLIP, by name."""
        return {} if self.head.proposer is None else {"proposer": self.head.proposer.fingerprint}


AnyDetector: TypeAlias = Detector | DenseDetector
"""Of any words, or of a closed list."""


def new_detector(
    clip: Clip,
    words: Sequence[str],
    novel: Sequence[bool],
    *,
    templates: str,
    size: int,
    config: Mapping[str, Any],
) -> Detector:
    """Return an untrained F-ViT of words, of which the ``novel`` ones are not to be learned."""
    bank = build_bank(clip, Vocabulary(words), templates=templates)
    rows, _ = _joined(bank, _background(clip, bank.templates, bank.mean))
    head = FVit(clip, rows.to(clip.device), novel, FVitConfig().replace(**config))
    return Detector(head.to(clip.device), clip, size, "untrained", tuple(words), tuple(novel), templates)


def new_c4(
    clip: Clip,
    words: Sequence[str],
    novel: Sequence[bool],
    *,
    proposer: Proposer | str | Path,
    templates: str,
    size: int,
    config: Mapping[str, Any],
) -> Detector:
    """Return an untrained detector of RegionCLIP's; ``proposer`` is one, or the folder of one.

    Raises:
        ModelError: there is no proposer.
    """
    if not isinstance(proposer, Proposer):
        proposer = load_beside(proposer, clip)
    bank = build_bank(clip, Vocabulary(words), templates=templates)
    rows, _ = _joined(bank, _nothing(bank))
    head = C4(clip, proposer, rows.to(clip.device), novel, C4Config().replace(**config))
    return Detector(head.to(clip.device), clip, size, "untrained", tuple(words), tuple(novel), templates)


def save_detector(
    detector: Detector,
    folder: str | Path,
    card: Mapping[str, Any] | None = None,
    *,
    dtype: Literal["fp32", "fp16"] = "fp32",
) -> Path:
    """Write a detector; CLIP and proposer are named and not copied. The folder appears whole or not at all.

    Raises:
        InputError: the folder holds something else, or the proposer is in no folder.
    """
    proposer = detector.head.proposer
    told = {} if proposer is None else {"proposer": proposer_card(proposer)}
    return save_head(detector, folder, {**(card or {}), **told}, dtype=dtype)


def load_detector(
    name: str | Path,
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
    clip: Clip | None = None,
    proposer: Proposer | None = None,
) -> AnyDetector:
    """Load a detector in eval mode, with the CLIP and the proposer that its card names, or the same ones given.

    ``name`` is a folder, or the name of a detector that ships. DenseCLIP's needs no CLIP.

    Raises:
        ModelError: there is no detector, or CLIP or proposer are other ones than it was trained on.
    """
    folder = head_folder(name)
    card = read_head_card(folder, KINDS)
    if card["head"] == DenseClipDetector.kind:
        return load_dense_detector(name, device=device, precision=precision, clip=clip)
    clip = clip_of(card, folder, clip, device=device, precision=precision)
    words, novel, how = card["words"], card["novel"], {key: card[key] for key in ("templates", "size", "config")}
    if card["head"] == C4.kind:
        made = new_c4(clip, words, novel, proposer=proposer_of(card, folder, clip, proposer), **how)
    else:
        made = new_detector(clip, words, novel, **how)
    fill(made.head, folder)
    return replace(made, name=str(name))


def _nothing(bank: TextBank) -> Float[Tensor, "1 dim"]:
    return bank.embeddings.new_zeros(1, bank.embeddings.shape[1])


def _background(clip: Clip, templates: str, mean: str) -> Embeddings:
    return build_bank(clip, Vocabulary([FVit.background]), templates=templates, mean=mean).embeddings


def _joined(bank: TextBank, background: Float[Tensor, "1 dim"]) -> tuple[Embeddings, Labels]:
    rows = torch.cat([bank.embeddings, background.to(bank.embeddings)])
    return rows, torch.cat([bank.owner, bank.owner.new_tensor([len(bank)])])
