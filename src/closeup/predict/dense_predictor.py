"""A trained DenseCLIP on photos of any size: whole or through windows, at several scales, mirrored."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import PIL.Image
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from closeup.data.record import Record
from closeup.errors import InputError
from closeup.heads.dense_predictor import DensePredictor
from closeup.models.clip import Clip
from closeup.models.preprocess import Size
from closeup.predict.cells import window_starts
from closeup.predict.provenance import Provenance, describe
from closeup.predict.scorers import Scores, Tell
from closeup.text import TextBank

LONGEST = 4
"""The longest side of a picture, in shortest sides, that is still looked at in its proportions."""


@dataclass(frozen=True, slots=True)
class DensePredictorScorer:
    """Logits of the words of a trained DenseCLIP.

    The shortest side is brought to the head's size, times each of ``scales``, and each side rounded to whole patches.
    With a ``window``, its side in pixels, the head sees parts of that size every ``stride`` pixels (two thirds of it
    unless given), and logits are averaged where they overlap. With several scales, or ``mirrored``, probabilities are
    averaged.

    Raises:
        InputError: a window or stride below one pixel, gaps between windows, or a scale that is not positive.

    Source: ``raoyongming/DenseCLIP`` ``segmentation/configs`` (window 512, stride 341) and ``test.py`` (scales 0.5 to
    1.75, mirrored). There logits are averaged on pixels, here on the cells of the finest map.
    """

    predictor: DensePredictor
    window: int | None = None
    stride: int | None = None
    scales: tuple[float, ...] = (1.0,)
    mirrored: bool = False

    def __post_init__(self) -> None:
        if self.window is not None and (self.window < 1 or not 1 <= (self.stride or 1) <= self.window):
            raise InputError(
                f"window {self.window} and stride {self.stride} must be pixels, the stride no larger than the window."
            )
        if not self.scales or min(self.scales) <= 0:
            raise InputError(f"scales {self.scales} must be positive numbers, as in 0.5, 1 and 1.75.")

    @property
    def clip(self) -> Clip:
        """The model that the head was made from, or its image tower alone."""
        return self.predictor.clip

    @torch.no_grad()
    def score(
        self, record: Record, picture: PIL.Image.Image, bank: TextBank, on_progress: Tell | None = None
    ) -> Scores:
        """Return the scores of a picture."""
        looks = list(product(self.scales, (False, True) if self.mirrored else (False,)))
        canvas, cells = (0, 0), None
        for done, (scale, mirrored) in enumerate(looks, start=1):
            pixels, canvas = self._seen(picture, scale)
            logits = self._logits(pixels.flip(2) if mirrored else pixels)
            found = logits.flip(2) if mirrored else logits
            if len(looks) == 1:
                return Scores(found, canvas, 1.0)
            found = found.softmax(dim=0)
            if cells is None:
                cells = found / len(looks)
            else:
                cells += F.interpolate(found[None], cells.shape[1:], mode="bilinear", align_corners=False)[0] / len(
                    looks
                )
            if on_progress is not None:
                on_progress(done, len(looks))
        assert cells is not None
        return Scores(cells, canvas, None)

    def describe(self, bank: TextBank, canvas: Size, **settings: str | float | None) -> Provenance:
        """Return what makes a result."""
        return describe(
            self.clip,
            bank,
            region_encoder="dense",
            route=self.predictor.head.config.route,
            image_size=canvas,
            head=self.predictor.name,
            window=self.window,
            stride=self.stride,
            scales=",".join(f"{scale:g}" for scale in self.scales),
            mirrored=self.mirrored,
            **settings,
        )

    def _seen(self, picture: PIL.Image.Image, scale: float) -> tuple[Float[Tensor, "3 height width"], Size]:
        patch = self.predictor.head.backbone.clip.patch
        longest, shortest = max(picture.size), min(picture.size)
        factor = self.predictor.size * scale / max(shortest, longest / LONGEST)
        height, width = (max(1, round(side * factor / patch)) * patch for side in (picture.height, picture.width))
        pixels, _ = self.predictor.head.backbone.clip.preprocess(picture, policy="squash", size=(height, width))
        return pixels, (height, width)

    def _logits(self, pixels: Float[Tensor, "3 height width"]) -> Float[Tensor, "words rows cols"]:
        backbone = self.predictor.head.backbone
        cell, (height, width) = backbone.strides[0], pixels.shape[1:]
        total = None
        for top, left, high, wide in self._windows(height, width):
            part = pixels[None, :, top : top + high, left : left + wide].to(backbone.clip.device)
            logits, _ = self.predictor.head.read(part)
            if (high, wide) == (height, width):
                return logits[0]
            if total is None:
                total = logits.new_zeros(logits.shape[1], *(math.ceil(side / cell) for side in (height, width)))
                seen = total.new_zeros(total.shape[1:])
            row, col = round(top / cell), round(left / cell)
            place = (slice(row, row + logits.shape[2]), slice(col, col + logits.shape[3]))
            total[:, *place] += logits[0]
            seen[place] += 1
        return total / seen

    def _windows(self, height: int, width: int) -> Iterator[tuple[int, int, int, int]]:
        patch = self.predictor.head.backbone.clip.patch
        side = max(height, width) if self.window is None else math.ceil(self.window / patch) * patch
        step = max(patch, round(self.stride or side * 2 / 3) // patch * patch)
        high, wide = min(side, height), min(side, width)
        for top, left in product(window_starts(height, high, step), window_starts(width, wide, step)):
            yield top, left, high, wide
