"""A word for every pixel from masks that are given: a CLIP names each one, and no proposer has a say."""

from __future__ import annotations

from dataclasses import dataclass

import PIL.Image
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from closeup._types import IGNORE, Embeddings
from closeup.data.record import Record
from closeup.errors import InputError, suggest
from closeup.geometry import masks_to_boxes
from closeup.match import score
from closeup.models.clip import Clip
from closeup.models.encode_regions import ENCODERS, MASKED_CROPS
from closeup.models.mask_prompt import check_prompts, cut_out_view
from closeup.models.preprocess import Size
from closeup.predict.mask_sources import MaskSource
from closeup.predict.pixels import BestWords
from closeup.predict.provenance import Provenance, as_size, describe
from closeup.predict.scorers import Scores, Tell
from closeup.text import TextBank


@dataclass(frozen=True, slots=True)
class GivenMasksScorer:
    """Words of masks of any source, by what a CLIP says of each; where masks overlap the surer one speaks.

    Pixels of no mask are background. ``how`` is any region encoder, of which ``crop`` sees the boxes of masks (None:
    ``mask-prompt`` where the CLIP has prompts, else ``masked-crop``); ``batch`` is how many crops are encoded at a
    time.

    Raises:
        InputError: an unknown region encoder, or prompts of a CLIP that has none; as ``encode_regions``.
    """

    clip: Clip
    source: MaskSource
    how: str | None = None
    batch: int = 32

    def __post_init__(self) -> None:
        if self.how is not None and self.how not in ENCODERS:
            raise InputError(f"Unknown way to look at a mask: {self.how!r}. {suggest(self.how, ENCODERS)}")
        check_prompts(self.clip, self.how)

    @property
    def looks(self) -> str:
        """The region encoder."""
        return self.how or cut_out_view(self.clip)

    @torch.no_grad()
    def score(
        self, record: Record, picture: PIL.Image.Image, bank: TextBank, on_progress: Tell | None = None
    ) -> Scores:
        """Return the scores of a record; its cells are no finer than 256 a side, its best words are of every pixel."""
        size = (picture.height, picture.width)
        planes = self.source(record, picture).masks
        shares = torch.zeros(0, len(bank))
        if len(planes):
            regions = self._seen(picture, planes, on_progress)
            shares = (self.clip.logit_scale * score(regions.cpu(), bank.to("cpu"))).softmax(dim=1)
        sure, labels = shares.max(dim=1) if len(shares) else (torch.zeros(0), torch.zeros(0, dtype=torch.long))
        scores, label_map = torch.zeros(size), torch.full(size, IGNORE)
        for row in sure.argsort().tolist():
            scores[planes[row]], label_map[planes[row]] = sure[row], labels[row]
        return Scores(_cells(planes, shares), as_size(self.clip, None), None, BestWords(label_map, scores, None))

    def _seen(
        self, picture: PIL.Image.Image, planes: Bool[Tensor, "masks height width"], on_progress: Tell | None
    ) -> Embeddings:
        parts = []
        # One pass of the tower serves all masks that are read off the dense map or have a token each.
        step = self.batch if self.looks == "crop" or self.looks in MASKED_CROPS else len(planes)
        for start in range(0, len(planes), step):
            some = planes[start : start + step]
            boxes, masks = (masks_to_boxes(some), None) if self.looks == "crop" else (None, some)
            parts += self.clip.encode_regions(picture, boxes=boxes, masks=masks, how=self.looks, batch=self.batch)
            if on_progress is not None:
                on_progress(min(start + step, len(planes)), len(planes))
        return torch.cat(parts)

    def describe(self, bank: TextBank, canvas: Size, **settings: str | float | None) -> Provenance:
        """Return what makes a result."""
        return describe(
            self.clip,
            bank,
            region_encoder=self.looks,
            route="value",
            image_size=canvas,
            masks=self.source.name,
            masks_fingerprint=self.source.fingerprint,
            **settings,
        )


def _cells(
    planes: Bool[Tensor, "masks height width"], shares: Float[Tensor, "masks words"], longest: int = 256
) -> Float[Tensor, "words rows cols"]:
    """Return each word's best share among the masks that cover a cell, weighed by how much of it they cover."""
    height, width = planes.shape[1:]
    scale = min(1.0, longest / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    cells = torch.zeros(shares.shape[1], *size)
    for plane, share in zip(planes, shares, strict=True):
        covered = F.adaptive_avg_pool2d(plane[None, None].float(), size)[0]
        cells = torch.maximum(cells, share[:, None, None] * covered)
    return cells
