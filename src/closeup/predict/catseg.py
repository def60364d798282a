"""CAT-Seg on photos of any size: the whole picture and windows over it, averaged."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import PIL.Image
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from closeup.data.record import Record
from closeup.heads.segmenter import Segmenter
from closeup.match import reduce_synonyms
from closeup.models.clip import Clip
from closeup.models.preprocess import Size
from closeup.predict.cells import window_starts
from closeup.predict.provenance import Provenance, describe
from closeup.predict.scorers import Scores, Tell
from closeup.text import TextBank

OVERLAP = 1 / 3
"""Of neighbouring windows, as a share of their side."""
ENLARGED = 640 / 384
"""The side of the picture that windows look at, in windows."""


@dataclass(frozen=True, slots=True)
class CatSegScorer:
    """Probabilities of words by a trained CAT-Seg, whose CLIP may have learned too: words are that CLIP's.

    The picture's longest side is brought to the head's size. With ``windows`` it is looked at a second time, larger by
    640 / 384, through windows of the head's size that overlap by a third, and both are averaged, as officially.

    Source: ``KU-CVLAB/CAT-Seg`` ``cat_seg/cat_seg_model.py``. There pictures are stretched to squares.
    """

    segmenter: Segmenter
    windows: bool = False

    @property
    def clip(self) -> Clip:
        """The model whose text tower makes the banks."""
        return self.segmenter.head.clip

    @torch.no_grad()
    def score(
        self, record: Record, picture: PIL.Image.Image, bank: TextBank, on_progress: Tell | None = None
    ) -> Scores:
        """Return the scores of a picture."""
        size = self.segmenter.size
        pixels, placement = self.clip.preprocess(picture, policy="fit", size=size)
        whole = self._words(pixels, bank)
        if not self.windows:
            return Scores(whole, placement.canvas, None)
        patch = self.clip.patch
        side = max(patch, size // patch * patch)
        large, placement = self.clip.preprocess(picture, policy="fit", size=round(size * ENLARGED))
        height, width = large.shape[1:]
        step = max(patch, round(side * (1 - OVERLAP)) // patch * patch)
        corners = list(product(window_starts(height, side, step), window_starts(width, side, step)))
        scale = whole.shape[1] * patch // pixels.shape[1]
        total = whole.new_zeros(len(whole), height * scale // patch, width * scale // patch)
        seen = total.new_zeros(total.shape[1:])
        for done, (top, left) in enumerate(corners, start=1):
            part = self._words(large[:, top : top + side, left : left + side], bank)
            row, col = top * scale // patch, left * scale // patch
            place = (slice(row, row + part.shape[1]), slice(col, col + part.shape[2]))
            total[:, *place] += part
            seen[place] += 1
            if on_progress is not None:
                on_progress(done, len(corners))
        again = F.interpolate(whole[None], total.shape[1:], mode="bilinear", align_corners=False)[0]
        return Scores((total / seen + again) / 2, placement.canvas, None)

    def describe(self, bank: TextBank, canvas: Size, **settings: str | float | None) -> Provenance:
        """Return what makes a result."""
        head = self.segmenter.head
        return describe(
            self.clip,
            bank,
            region_encoder="dense",
            route=head.config.route,
            image_size=canvas,
            head=self.segmenter.name,
            windows=self.windows,
            **settings,
        )

    def _words(self, pixels: Float[Tensor, "3 height width"], bank: TextBank) -> Float[Tensor, "words rows cols"]:
        strings = self.segmenter.head.score(pixels[None].to(self.clip.device), bank.embeddings.to(self.clip.device))[0]
        flat = reduce_synonyms(strings.flatten(1).T, bank.owner.to(strings.device), len(bank))
        words: Tensor = flat.T.unflatten(1, strings.shape[1:])
        return words
