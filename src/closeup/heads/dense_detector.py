"""A trained DenseCLIP that finds things, as a folder like that of one that names pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torchvision.ops import batched_nms

from closeup._types import Images
from closeup.heads.closed_words import places_among
from closeup.heads.dense_predictor import ClosedHead, load_closed, new_closed
from closeup.heads.denseclip_detection import DenseClipDetector
from closeup.heads.denseclip_detection_config import DenseClipDetectorConfig
from closeup.heads.regions import Sizes
from closeup.match.detections import Detections, Suppression
from closeup.models.clip import Clip
from closeup.text import TextBank


@dataclass(frozen=True, slots=True, eq=False)
class DenseDetector(ClosedHead):
    """A DenseCLIP that finds things."""

    head: DenseClipDetector

    @property
    def outlines(self) -> bool:
        """Whether it outlines things, and learns from masks."""
        return self.head.outlines

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
        """Return what is found in each picture among the names of a bank, boxes in pixels of the canvas.

        Raises:
            InputError: a word that it does not know.
        """
        rows, owner = places_among(bank.vocabulary, self.words, self.name)
        often = max(owner.count(label) for label in owner)
        found = self.head.detect(
            images, sizes, torch.tensor(rows), threshold=threshold, limit=limit * often, suppression=suppression
        )
        labels = torch.tensor(owner, device=self.eyes.device)
        named = [replace(each, labels=labels[each.labels]) for each in found]
        overlap = self.head.config.overlap if suppression is None else suppression.overlap
        return named if often == 1 else [_thinned(each, overlap, limit) for each in named]


def _thinned(found: Detections, overlap: float, limit: int) -> Detections:
    """Return the best boxes where several of the head's words are one word: each was thinned out alone."""
    kept = batched_nms(found.boxes, found.scores, found.labels, overlap)[:limit]
    outlines = None if found.outlines is None else found.outlines[kept]
    return Detections(found.boxes[kept], found.labels[kept], found.scores[kept], outlines)


def new_dense_detector(
    clip: Clip,
    words: Sequence[str],
    novel: Sequence[bool],
    *,
    templates: str,
    size: int,
    config: Mapping[str, Any],
) -> DenseDetector:
    """Return an untrained detector of words; ``novel`` is of no account, for it learns all of them.

    The tower's native size is the canvas in whole patches, so that positions of the attention pool are those of a
    picture in its corner: in the official code a grid for the largest picture is cut to what a picture covers.

    Raises:
        ModelError: a ViT of fewer than four blocks, or a text tower that contexts cannot go through.
    """
    settings = DenseClipDetectorConfig().replace(**config)
    side = math.ceil(size / clip.patch) * clip.patch
    return new_closed(
        DenseDetector, DenseClipDetector, settings, clip, words, novel, templates=templates, size=size, native=side
    )


def load_dense_detector(
    name: str | Path, *, device: str | torch.device = "auto", precision: str = "auto", clip: Clip | None = None
) -> DenseDetector:
    """Load a detector in eval mode, as ``load_dense_predictor`` does.

    Raises:
        ModelError: there is none, or the CLIP that is needed is another one than it was trained on.
    """
    how: dict[str, Any] = {"device": device, "precision": precision, "clip": clip}
    return load_closed(DenseDetector, DenseClipDetector, DenseClipDetectorConfig(), name, **how)
