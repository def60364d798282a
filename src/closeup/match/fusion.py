"""Fusion of two tables of probabilities, one from a trained head and one from CLIP, by a weighted geometric mean."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from closeup.errors import InputError


def fuse(
    head: Float[Tensor, "regions words"],
    clip: Float[Tensor, "regions words"],
    weight: float | Float[Tensor, " words"],
    valid: Bool[Tensor, " regions"] | None = None,
) -> Float[Tensor, "regions words"]:
    """Return ``head^(1-w) * clip^w``, not normalised again; ``w``, 0 to 1, is one number or one a word.

    Where ``valid`` is False CLIP saw no region and its probability counts as 1, as in OVSeg
    (ovseg_model.py, semantic_inference). ODISE and F-ViT give base and novel words different weights:
    ``word_weights``. InputError for a weight outside 0 to 1.
    """
    power = torch.as_tensor(weight, dtype=head.dtype, device=head.device)
    if not bool(((power >= 0) & (power <= 1)).all()):
        raise InputError(f"The weight of CLIP's score must lie between 0 and 1, but is {weight}.")
    seen = clip if valid is None else clip.masked_fill(~valid[:, None], 1.0)
    return head.pow(1 - power) * seen.pow(power)


def word_weights(novel: Sequence[bool], *, base_weight: float, novel_weight: float) -> Float[Tensor, " words"]:
    """Return CLIP's weight for every word from a vocabulary's ``novel`` marks; novel words lean on CLIP more."""
    return torch.where(torch.tensor(list(novel), dtype=torch.bool), novel_weight, base_weight)
