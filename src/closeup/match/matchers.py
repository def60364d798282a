"""The matching functions by name: the cosine and the five of FG-CLIP."""

from __future__ import annotations

import math

from torch import nn

from closeup.errors import InputError, suggest
from closeup.match.attention import AttentionMatcher
from closeup.match.matcher import Inputs, Matcher
from closeup.match.projection import ProjectionMatcher, linear_side, mlp_side

KINDS = ("cosine", "linear", "linear-image", "linear-text", "mlp", "attention")
"""Linear layers on both sides or on one; what the others are called is what they are."""

HEADS = 64
"""Of the official attention matcher, whose width is 512."""


def new_matcher(
    kind: str,
    dim: int | None = None,
    *,
    hidden: int | None = None,
    heads: int | None = None,
    inputs: Inputs = "unit",
    scale: float | None = None,
) -> Matcher:
    """Return an untrained matcher, its weights drawn as torch draws those of such layers.

    Args:
        kind: One of ``KINDS``.
        dim: Width of the embeddings; all but "cosine" need it.
        hidden: Width between the layers of "mlp" (None: ``dim``).
        heads: Of "attention" (None: 64, or the largest divisor of 64 that divides ``dim``).
        inputs: What embeddings it will be given; the official ones take them raw.
        scale: As in ``Matcher``.

    Raises:
        InputError: an unknown kind, a width that is missing, or a setting that the kind does not have or bear.

    Source: FG-CLIP (``lorebianchi98/FG-CLIP`` ``configs/model/*.yaml``).
    """
    if kind not in KINDS:
        raise InputError(f"Unknown matcher {kind!r}. {suggest(str(kind), KINDS)}")
    _check(kind, hidden, heads, inputs)
    if kind == "cosine":
        return ProjectionMatcher(kind, dim, nn.Identity(), nn.Identity(), squashed=False, inputs=inputs, scale=scale)
    if dim is None or dim < 1:
        raise InputError(f"dim is {dim}: the matcher {kind!r} needs the width of CLIP's embeddings, as in clip.dim.")
    if kind == "attention":
        heads = heads or math.gcd(HEADS, dim)
        if dim % heads:
            raise InputError(f"{heads} heads cannot share {dim} dimensions equally. Give a divisor of {dim}.")
        return AttentionMatcher(dim, heads, inputs=inputs, scale=scale)
    image = text = None
    if kind == "mlp":
        image, text = mlp_side(dim, hidden or dim), mlp_side(dim, hidden or dim)
    if kind in ("linear", "linear-image"):
        image = linear_side(dim)
    if kind in ("linear", "linear-text"):
        text = linear_side(dim)
    return ProjectionMatcher(kind, dim, image or nn.Identity(), text or nn.Identity(), inputs=inputs, scale=scale)


def _check(kind: str, hidden: int | None, heads: int | None, inputs: str) -> None:
    for name, value, owner in (("hidden", hidden, "mlp"), ("heads", heads, "attention")):
        if value is not None and (kind != owner or value < 1):
            raise InputError(f"{name} is {value} for the matcher {kind!r}: give 1 or more, and for {owner!r} alone.")
    if inputs not in ("unit", "raw"):
        raise InputError(f"inputs is {inputs!r}: give 'unit' for embeddings of length one, or 'raw'.")
