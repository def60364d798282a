"""Losses on a matcher's raw scores: pictures against each other's captions, and against wrong captions of their own.

Source: FG-CLIP (Bianchi et al., ``lorebianchi98/FG-CLIP`` ``src/loss.py``, ``configs/train/*.yaml``), margins too.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from closeup.errors import InputError

TRIPLET_MARGIN = 0.2
HINGE_MARGIN = 0.05


def triplet_loss(
    scores: Float[Tensor, "pictures texts"], *, margin: float = TRIPLET_MARGIN, hardest: bool = False
) -> Float[Tensor, ""]:
    """Return by how much pairs that do not belong together come too near those that do, in both directions, summed.

    ``scores[i, i]`` is a picture's own text, and every other score must stay ``margin`` below both pairs that it
    belongs to. With ``hardest`` only the worst of each row and of each column counts (VSE++, arXiv 1707.05612).

    Raises:
        InputError: not as many texts as pictures.
    """
    if scores.shape[0] != scores.shape[1]:
        raise InputError(f"Scores of {scores.shape[0]} pictures and {scores.shape[1]} texts: give one text a picture.")
    own = scores.diagonal()
    others = ~torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    by_picture = (margin + scores - own[:, None]).clamp(min=0) * others
    by_text = (margin + scores - own[None]).clamp(min=0) * others
    if hardest and len(scores):
        return by_picture.max(dim=1).values.sum() + by_text.max(dim=0).values.sum()
    return by_picture.sum() + by_text.sum()


def own_negatives_loss(
    scores: Float[Tensor, "regions captions"], *, margin: float = HINGE_MARGIN, hardest: bool = False
) -> Float[Tensor, ""]:
    """Return by how much wrong captions of each region come too near the right one, column 0, summed.

    With ``hardest`` only the worst caption of each region counts.

    Raises:
        InputError: no wrong captions.
    """
    if scores.shape[1] < 2:
        raise InputError(f"Scores of {scores.shape[1]} captions a region: give the right one and wrong ones after it.")
    excess = (margin + scores[:, 1:] - scores[:, :1]).clamp(min=0)
    return excess.max(dim=1).values.sum() if hardest else excess.sum()
