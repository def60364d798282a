"""MaskCLIP's two refinements of a map of scores, without any training: prompt denoising and key smoothing.

Source: Zhou et al., MaskCLIP, ECCV 2022 (arXiv 2112.01071), Section 3.2; ``chongzhou96/MaskCLIP``
``mmseg/models/decode_heads/maskclip_head.py``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from closeup.errors import InputError

SMOOTHINGS = ("cells", "positions")
"""What keys are normalised over before they are compared: each cell's key, as the paper writes it (``cells``), or each
channel over all cells, as the official code does (``positions``)."""

ABSENT = -100.0
"""The score of a word that is nowhere likely."""


def denoise(scores: Float[Tensor, "words rows cols"], scale: float, threshold: float = 0.5) -> Float[Tensor, "_ _ _"]:
    """Return scores with those of words whose probability reaches ``threshold`` at no cell set to ``ABSENT``.

    ``scale`` is what scores are multiplied by before the softmax over words (100 in the paper). Where no word reaches
    it, all are kept.
    """
    likely = (scores * scale).softmax(dim=0).flatten(1).amax(dim=1) >= threshold
    if not bool(likely.any()):
        return scores
    return scores.masked_fill(~likely[:, None, None], ABSENT)


def smooth(
    probabilities: Float[Tensor, "words rows cols"],
    keys: Float[Tensor, "channels rows cols"],
    threshold: float = 1.0,
    *,
    over: str = "cells",
) -> Float[Tensor, "words rows cols"]:
    """Return probabilities in which unsure cells are given those of all cells, weighed by the likeness of keys.

    A cell is unsure where no word reaches ``threshold``; at 1 nearly all of them are. Weights are cosines of two
    cells' keys (``over="cells"``), and do not sum to 1, as in the official code: for the best word it does not matter.

    Raises:
        InputError: an unknown way to normalise.
    """
    check_smoothing(over)
    unit = F.normalize(keys.flatten(1), dim=0 if over == "cells" else 1)
    flat = probabilities.flatten(1)
    spread = (flat @ unit.T) @ unit
    unsure = flat.amax(dim=0) < threshold
    return torch.where(unsure, spread, flat).reshape(probabilities.shape)


def check_smoothing(over: str) -> None:
    """Raise InputError unless keys can be normalised over this."""
    if over not in SMOOTHINGS:
        raise InputError(f"Keys are normalised over {SMOOTHINGS}, not over {over!r}.")
