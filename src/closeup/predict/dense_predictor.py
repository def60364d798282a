"""A trained DenseCLIP on photos of any size: whole or through windows, at several scales, mirrored."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product

import PIL.Image
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from closeup.data.record import Record
from closeup.errors import InputError
from closeup.heads.closed_words import Places, chosen_from, own_bank, places_among
from closeup.heads.dense_predictor import DensePredictor
from closeup.match import reduce_synonyms
from closeup.models.clip import Clip
from closeup.models.preprocess import Size
from closeup.predict.cells import window_starts
from closeup.predict.pixels import Cells
from closeup.predict.provenance import Provenance, describe
from closeup.predict.scorers import Scores, Tell
from closeup.predict.words import Words
from closeup.text import Templates, TextBank

LONGEST = 4
"""The longest side of a picture, in shortest sides, that is still looked at in its proportions."""

Picture = Float[Tensor, "3 height width"]


@dataclass(frozen=True, slots=True)
class DensePredictorScorer:
    """Logits of the words of a trained DenseCLIP, a closed list; the head is taken as it is now, in eval mode.

    The shortest side is brought to the head's size, times each of ``scales``, and each side rounded to whole patches.
    With a ``window``, its side in pixels, the head sees parts of that size every ``stride`` pixels (two thirds of it
    unless given), ``batch`` of them at a time, and logits are averaged where they overlap. With several scales, or
    ``mirrored``, probabilities of the words that are asked for are averaged, at the cells of the largest scale.

    Raises:
        InputError: a window or stride below one pixel, a stride alone or one that leaves gaps, a scale that is no
            positive number, or a batch below one.

    Source: ``raoyongming/DenseCLIP`` ``segmentation/configs`` (window 512, stride 341) and ``test.py`` (scales 0.5 to
    1.75, mirrored). There windows' logits and looks' probabilities are averaged on pixels, here on the cells of the
    finest map.
    """

    predictor: DensePredictor
    window: int | None = None
    stride: int | None = None
    scales: tuple[float, ...] = (1.0,)
    mirrored: bool = False
    batch: int = 8
    _own: TextBank = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_scales(self.scales)
        if self.batch < 1:
            raise InputError(f"batch is {self.batch}: give at least one window at a time.")
        if any(value is not None and value < 1 for value in (self.window, self.stride)):
            raise InputError(f"window {self.window} and stride {self.stride} must be pixels, one or more.")
        if self.stride is not None and (self.window is None or self.stride > self.window):
            raise InputError(f"The stride {self.stride} needs a window of at least its size, but it is {self.window}.")
        object.__setattr__(self, "_own", own_bank(self.predictor))

    @property
    def clip(self) -> Clip:
        """The model that the head was made from, or its image tower alone."""
        return self.predictor.clip

    def bank_of(self, words: Words | None = None, templates: str | Templates | None = None) -> TextBank:
        """Return the bank of some of the head's words, None for all, from what it embedded when it was trained.

        Raises:
            InputError: a word that the head does not know, or a bank or templates that are not its own.
        """
        return chosen_from(self._own, self.predictor.name, words, templates)

    def novel_of(self, bank: TextBank) -> list[bool]:
        """Return which words of a bank were held back when it was trained."""
        rows, owner = self._places(bank)
        learned = {label for row, label in zip(rows, owner, strict=True) if not self.predictor.novel[row]}
        return [label not in learned for label in range(len(bank))]

    @torch.no_grad()
    def score(
        self, record: Record, picture: PIL.Image.Image, bank: TextBank, on_progress: Tell | None = None
    ) -> Scores:
        """Return the scores of a picture for the words of a bank: logits of a single look, else probabilities.

        Raises:
            InputError: a word of the bank that the head does not know.
        """
        rows, owner = self._places(bank)
        canvases = [self._canvas(picture, scale) for scale in self.scales]
        tell = _told(on_progress, sum(len(self._corners(canvas)) for canvas in canvases) * (1 + self.mirrored))
        looks: list[Cells] = []
        for canvas in canvases:
            pixels, _ = self.predictor.eyes.preprocess(picture, policy="squash", size=canvas)
            for seen in (pixels, pixels.flip(2)) if self.mirrored else (pixels,):
                logits = self._logits(seen, tell)[rows]
                found = reduce_synonyms(logits, torch.tensor(owner, device=logits.device), len(bank), dim=0)
                looks.append(found if seen is pixels else found.flip(2))
        largest = max(canvases, key=math.prod)
        if len(looks) == 1:
            return Scores(looks[0], largest, 1.0)
        return Scores(_mean_probabilities(looks), largest, None)

    def describe(self, bank: TextBank, canvas: Size, **settings: str | float | None) -> Provenance:
        """Return what makes a result."""
        return describe(
            self.clip,
            bank,
            region_encoder="dense",
            route=self.predictor.head.config.route,
            image_size=canvas,
            head=self.predictor.name,
            head_fingerprint=self._own.fingerprint,
            window=self.window,
            stride=self.stride,
            scales=",".join(f"{scale:g}" for scale in self.scales),
            mirrored=self.mirrored,
            **settings,
        )

    def _places(self, bank: TextBank) -> Places:
        return places_among(bank.vocabulary, self.predictor.words, self.predictor.name)

    @property
    def _least(self) -> int:
        """The side in patches that every level has a cell of."""
        coarsest: float = self.predictor.head.backbone.strides[-1]
        return math.ceil(coarsest / self.predictor.eyes.patch)

    def _canvas(self, picture: PIL.Image.Image, scale: float) -> Size:
        """Return the height and width that a picture is looked at, in whole patches."""
        patch = self.predictor.eyes.patch
        factor = self.predictor.size * scale / max(min(picture.size), max(picture.size) / LONGEST)
        height, width = (max(self._least, round(side * factor / patch)) * patch for side in reversed(picture.size))
        return height, width

    def _window(self, canvas: Size) -> Size:
        """Return the height and width of windows over a canvas, in whole patches."""
        if self.window is None:
            return canvas
        patch = self.predictor.eyes.patch
        side = max(self._least, math.ceil(self.window / patch)) * patch
        return min(side, canvas[0]), min(side, canvas[1])

    def _corners(self, canvas: Size) -> list[tuple[int, int]]:
        """Return the top and left of every window over a canvas."""
        if self.window is None:
            return [(0, 0)]
        patch = self.predictor.eyes.patch
        step = max(1, round(self.stride or self.window * 2 / 3) // patch) * patch
        high, wide = self._window(canvas)
        return list(product(window_starts(canvas[0], high, step), window_starts(canvas[1], wide, step)))

    def _logits(self, pixels: Picture, tell: Callable[[int], None]) -> Float[Tensor, "words rows cols"]:
        """Return the logits of all of the head's words at the cells of a canvas, averaged over windows."""
        head, tower = self.predictor.head, self.predictor.eyes
        cell, (height, width) = head.backbone.strides[0], pixels.shape[1:]
        (high, wide), corners = self._window((height, width)), self._corners((height, width))
        grid = round(height / cell), round(width / cell)
        total = torch.zeros(len(self.predictor.words), *grid, device=tower.device)
        seen = torch.zeros(grid, device=tower.device)
        for first in range(0, len(corners), self.batch):
            some = corners[first : first + self.batch]
            parts = torch.stack([pixels[:, top : top + high, left : left + wide] for top, left in some])
            logits, _ = head.read(parts.to(tower.device))
            for (top, left), part in zip(some, logits, strict=True):
                row, col = round(top / cell), round(left / cell)
                place = (slice(row, row + part.shape[1]), slice(col, col + part.shape[2]))
                total[:, *place] += part
                seen[place] += 1
            tell(len(some))
        return total / seen


def check_scales(scales: Sequence[float]) -> None:
    """Raise InputError unless there are scales, all of them positive numbers."""
    if not scales or not all(0 < scale < math.inf for scale in scales):
        raise InputError(f"scales {tuple(scales)} must be positive numbers, as in 0.5, 1 and 1.75.")


def _mean_probabilities(looks: Sequence[Float[Tensor, "words _ _"]]) -> Cells:
    """Return the mean of the probabilities of several looks, whose logits are brought to the cells of the largest."""
    largest = max((look.shape[1:] for look in looks), key=math.prod)
    grown = (F.interpolate(look[None], largest, mode="bilinear", align_corners=False)[0] for look in looks)
    total = torch.zeros(len(looks[0]), *largest, device=looks[0].device)
    for logits in grown:
        total += logits.softmax(dim=0) / len(looks)
    return total


def _told(on_progress: Tell | None, total: int) -> Callable[[int], None]:
    """Return what is told how many more windows are done, and passes on how many that are by now."""
    done = 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        if on_progress is not None:
            on_progress(done, total)

    return tell
