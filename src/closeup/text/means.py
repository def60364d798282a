"""Three ways to make one embedding of a word's prompts; the papers use different ones, and the numbers differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def normalise_then_mean(prompts: Float[Tensor, "prompts dim"]) -> Float[Tensor, " dim"]:
    """Unit-length every prompt, average them, unit-length the average (CLIP, ViLD, CLIPSelf, OVSeg)."""
    return F.normalize(F.normalize(prompts, dim=1).mean(dim=0), dim=0)


def mean_then_normalise(prompts: Float[Tensor, "prompts dim"]) -> Float[Tensor, " dim"]:
    """Average the prompts as the tower gives them, unit-length the average: long embeddings weigh more."""
    return F.normalize(mean_of_raw(prompts), dim=0)


def mean_of_raw(prompts: Float[Tensor, "prompts dim"]) -> Float[Tensor, " dim"]:
    """Average the prompts as the tower gives them and leave the length.

    Source: RegionCLIP's concept files (tools/extract_concept_features.py). By the cosine it is the same as
    ``mean_then_normalise``.
    """
    return prompts.mean(dim=0)


MEANS: Mapping[str, Callable[[Float[Tensor, "prompts dim"]], Float[Tensor, " dim"]]] = MappingProxyType(
    {
        "normalise-then-mean": normalise_then_mean,
        "mean-then-normalise": mean_then_normalise,
        "mean-of-raw": mean_of_raw,
    }
)
"""The means by name."""
