"""MaskCLIP: the dense map's scores made cleaner without any training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import PIL.Image
import torch

from closeup.data.record import Record
from closeup.errors import InputError
from closeup.match import score_map
from closeup.match.refinement import check_smoothing, denoise, smooth
from closeup.models.clip import Clip
from closeup.models.preprocess import Size
from closeup.predict.provenance import Provenance, describe
from closeup.predict.scorers import Scores, Tell
from closeup.text import TextBank


@dataclass(frozen=True, slots=True)
class MaskClipScorer:
    """Cosines with the dense map through the value route, then prompt denoising and key smoothing.

    ``denoising`` is the probability that a word must reach somewhere in the picture to be looked at (None: all are);
    cells in which no word reaches ``smoothing`` are given the probabilities of all cells by the likeness of their keys
    (None: none are). ``keys`` is what keys are normalised over: each cell's own, as the paper writes it, or
    "positions", as the official code does.

    Raises:
        InputError: a probability outside 0 to 1, an unknown way to compare keys, a tower without keys.

    Source: MaskCLIP (arXiv 2112.01071); both refinements are off in its plain configs, on in those named "kspd".
    """

    clip: Clip
    size: int | Size | None = None
    denoising: float | None = 0.5
    smoothing: float | None = 1.0
    keys: Literal["cells", "positions"] = "cells"

    def __post_init__(self) -> None:
        for name, value in (("denoising", self.denoising), ("smoothing", self.smoothing)):
            if value is not None and not 0 <= value <= 1:
                raise InputError(f"`{name}` is {value}: give a probability from 0 to 1, or None for none.")
        check_smoothing(self.keys)

    @torch.no_grad()
    def score(
        self, record: Record, picture: PIL.Image.Image, bank: TextBank, on_progress: Tell | None = None
    ) -> Scores:
        """Return the scores of a picture: sums of probabilities of cells where they are smoothed, else cosines."""
        pixels, placement = self.clip.preprocess(picture, policy="fit", size=self.size)
        maps, keys = self.clip.encode_dense_and_keys(pixels[None])
        cells, scale = score_map(maps, bank)[0], self.clip.logit_scale
        if self.denoising is not None:
            cells = denoise(cells, scale, self.denoising)
        if self.smoothing is None:
            return Scores(cells, placement.canvas, scale)
        likely = smooth((scale * cells).softmax(dim=0), keys[0], self.smoothing, over=self.keys)
        return Scores(likely, placement.canvas, None, bounded=False)

    def describe(self, bank: TextBank, canvas: Size, **settings: str | float | None) -> Provenance:
        """Return what makes a result."""
        own = {"denoising": self.denoising, "smoothing": self.smoothing, "keys": self.keys}
        return describe(self.clip, bank, region_encoder="dense", route="value", image_size=canvas, **own, **settings)
