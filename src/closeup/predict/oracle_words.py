"""Masks whose words are those of the truth: what a proposer would be worth if it were named without a mistake."""

from __future__ import annotations

from dataclasses import dataclass

import PIL.Image
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from closeup._types import IGNORE, LabelMap
from closeup.data.record import Record
from closeup.errors import DataError
from closeup.models.clip import Clip
from closeup.models.preprocess import Size
from closeup.predict.mask_sources import MaskSource
from closeup.predict.pixels import BestWords
from closeup.predict.provenance import Provenance, describe
from closeup.predict.scorers import Scores, Tell
from closeup.text import TextBank


@dataclass(frozen=True, slots=True)
class OracleWordsScorer:
    """Each mask has the true word that it overlaps most; where masks overlap, the smaller one speaks.

    The CLIP is not asked, and only makes the bank. Pixels of no mask are background.

    Source: OVSeg (arXiv 2210.04150), Section 4, "oracle label".
    """

    clip: Clip
    source: MaskSource

    def score(
        self, record: Record, picture: PIL.Image.Image, bank: TextBank, on_progress: Tell | None = None
    ) -> Scores:
        """Return the words of a record; DataError where it has no label map."""
        if record.label_map is None:
            raise DataError(f"Record {record.id!r} has no label map, so its masks have no true words.")
        planes = self.source(record, picture).masks
        labels = most_overlapped(planes, record.label_map, len(bank))
        label_map = torch.full((picture.height, picture.width), IGNORE)
        for row in planes.flatten(1).sum(dim=1).argsort(descending=True).tolist():
            label_map[planes[row]] = labels[row]
        covered = (label_map != IGNORE).float()
        size = (picture.height, picture.width)
        cells = torch.zeros(len(bank), 1, 1)
        return Scores(cells, size, None, BestWords(label_map, covered, None))

    def describe(self, bank: TextBank, canvas: Size, **settings: str | float | None) -> Provenance:
        """Return what makes a result."""
        return describe(
            self.clip,
            bank,
            region_encoder="truth",
            route="value",
            image_size=canvas,
            masks=self.source.name,
            masks_fingerprint=self.source.fingerprint,
            **settings,
        )


def most_overlapped(planes: Bool[Tensor, "masks height width"], truth: LabelMap, words: int) -> Int[Tensor, " masks"]:
    """Return the label that each mask shares most pixels with; IGNORE where it shares none with any."""
    labels = []
    for plane in planes:
        inside = truth[plane]
        counts = torch.bincount(inside[inside != IGNORE], minlength=words)
        labels.append(int(counts.argmax()) if int(counts.sum()) else IGNORE)
    return torch.tensor(labels, dtype=torch.long)
