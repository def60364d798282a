"""From cells to pixels: scores are brought to the original image a band at a time, then the best word is taken."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from closeup._types import LabelMap
from closeup.errors import InputError, suggest

Cells: TypeAlias = Float[Tensor, "words rows cols"]
"""One score per word and cell of the dense map; the cells cover the whole image and nothing else."""

MODES = ("bilinear", "nearest")
"""Between the centres of cells: interpolated (PyTorch's, ``align_corners=False``), or the score of the pixel's cell."""

BUDGET = 2**24
"""Scores that exist at once while pixels are labelled: 64 MiB, whatever the image and the vocabulary."""


class BestWords(NamedTuple):
    """The best word of every pixel: its label, its raw score and, if a scale was given, its probability."""

    labels: LabelMap
    scores: Float[Tensor, "height width"]
    probabilities: Float[Tensor, "height width"] | None


def best_words(
    cells: Cells,
    size: tuple[int, int],
    *,
    mode: str = "bilinear",
    scale: float | None = None,
    budget: int = BUDGET,
) -> BestWords:
    """Bring the scores to ``size`` (height, width), then take the best word of every pixel; ties go to the first.

    With ``scale`` a probability is the softmax over all words of ``scale`` times the score at the pixel. The
    scores of all words on all pixels of a photograph are gigabytes: here ``budget`` of them exist at a time, or
    those of one row of pixels. Results are on the CPU.

    Raises:
        InputError: for an unknown mode.
    """
    height, width = size
    step = max(1, budget // (len(cells) * width))
    labels, scores = torch.empty(size, dtype=torch.long), torch.empty(size)
    probabilities = None if scale is None else torch.empty(size)
    for top in range(0, height, step):
        band = slice(top, min(top + step, height))
        found = _best(_rows(cells, height, band, mode), width, mode, scale)
        labels[band], scores[band] = found.labels, found.scores
        if probabilities is not None and found.probabilities is not None:
            probabilities[band] = found.probabilities
    return BestWords(labels, scores, probabilities)


def to_pixels(cells: Cells, size: tuple[int, int], *, mode: str = "bilinear") -> Float[Tensor, "words height width"]:
    """Return the scores of all words at ``size`` (height, width): for a few words, since they are in one piece.

    Raises:
        InputError: for an unknown mode.
    """
    return _columns(_rows(cells, size[0], slice(0, size[0]), mode), size[1], mode)


def _best(band: Float[Tensor, "words band cols"], width: int, mode: str, scale: float | None) -> BestWords:
    if scale is None:
        kept = _contenders(band).nonzero().squeeze(1)
        scores, places = _columns(band[kept], width, mode).max(dim=0)
        return BestWords(kept[places], scores, None)
    everything = _columns(band, width, mode)
    scores, labels = everything.max(dim=0)
    # The softmax of the best word is one over the sum of exp(scale * (score - best score)).
    return BestWords(labels, scores, 1 / everything.sub_(scores).mul_(scale).exp_().sum(dim=0))


def _contenders(band: Float[Tensor, "words band cols"]) -> Bool[Tensor, " words"]:
    """Tell which words may be the best somewhere: no other word is ahead of them at both of two neighbours.

    Between two neighbours all scores are linear, so the other words need not be brought to pixels at all.
    """
    left, right = (band[..., :-1], band[..., 1:]) if band.shape[2] > 1 else (band, band)
    assured = torch.minimum(left, right).amax(dim=0)
    return (torch.maximum(left, right) >= assured).flatten(1).any(dim=1)


def _rows(cells: Cells, height: int, wanted: slice, mode: str) -> Float[Tensor, "words band cols"]:
    """Resize the rows of the map to ``height`` and return some of them; the columns stay cells."""
    if mode not in MODES:
        raise InputError(f"Unknown way to upsample {mode!r}. {suggest(str(mode), MODES)}")
    centres = (torch.arange(wanted.start, wanted.stop, dtype=torch.float64) + 0.5) * (cells.shape[1] / height)
    if mode == "nearest":
        return cells[:, centres.floor().long().to(cells.device)]
    places = (centres - 0.5).clamp(min=0, max=cells.shape[1] - 1)
    above = places.floor().long()
    below = (above + 1).clamp(max=cells.shape[1] - 1)
    share = (places - above).to(cells)[:, None]
    return torch.lerp(cells[:, above.to(cells.device)], cells[:, below.to(cells.device)], share)


def _columns(band: Float[Tensor, "words band cols"], width: int, mode: str) -> Float[Tensor, "words band width"]:
    size = (band.shape[1], width)
    if mode == "nearest":
        return F.interpolate(band[None], size=size, mode="nearest-exact")[0]
    return F.interpolate(band[None], size=size, mode="bilinear", align_corners=False)[0]
