"""The matching functions by name: the cosine, the five of FG-CLIP, and two that begin as the cosine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from torch import nn

from closeup.errors import InputError, suggest
from closeup.match.attention import AttentionMatcher
from closeup.match.matcher import Inputs, Matcher, Seen
from closeup.match.projection import (
    OwnPart,
    ProjectionMatcher,
    identity_side,
    linear_side,
    mlp_side,
    residual_mlp_side,
    residual_side,
)

Side: TypeAlias = Callable[[int, int, int], nn.Module]
"""Makes one side of a matcher: of what width it is given, the width between its layers, and that of embeddings."""

SIDES: Mapping[str, tuple[Side, Side]] = MappingProxyType(
    {
        "linear": (linear_side, linear_side),
        "linear-image": (linear_side, identity_side),
        "linear-text": (identity_side, linear_side),
        "mlp": (mlp_side, mlp_side),
        "residual": (residual_side, residual_side),
        "residual-mlp": (residual_mlp_side, residual_mlp_side),
    }
)
"""What is made of regions and of texts before their cosine is taken, by the matcher's kind."""

LAYERED = {"mlp": 1, "residual-mlp": 4}
"""Those with a width between their layers, and how many times that of the embeddings it is unless told."""

LOOKING = ("linear", "linear-image", "mlp", "residual", "residual-mlp")
"""Those that learn from details behind the embeddings of regions too."""

KINDS = ("cosine", *SIDES, "attention")
"""The matchers by name."""

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
    seen: Seen | None = None,
) -> Matcher:
    """Return an untrained matcher, its weights drawn as torch draws those of such layers.

    Args:
        kind: One of ``KINDS``.
        dim: Width of the embeddings; all but "cosine" need it.
        hidden: Width between the layers of "mlp" (None: ``dim``) and "residual-mlp" (None: four times ``dim``).
        heads: Of "attention" (None: 64, or the largest divisor of 64 that divides ``dim``).
        inputs: What embeddings it will be given; the official ones take them raw.
        scale: As in ``Matcher``.
        seen: What regions have behind their embeddings; for the cosine, which leaves it out, and ``LOOKING``.

    Raises:
        InputError: an unknown kind, a width that is missing, or a setting that the kind does not have or bear.

    Source: FG-CLIP (``lorebianchi98/FG-CLIP`` ``configs/model/*.yaml``).
    """
    if kind not in KINDS:
        raise InputError(f"Unknown matcher {kind!r}. {suggest(str(kind), KINDS)}")
    _check(kind, hidden, heads, inputs)
    if seen is not None and dim is None:
        raise InputError("dim is None: a matcher that sees details must be told where the embedding before them ends.")
    if seen is not None and kind not in ("cosine", *LOOKING):
        raise InputError(f"The matcher {kind!r} sees embeddings alone, without details. {suggest(kind, LOOKING)}")
    if kind == "cosine":
        own = nn.Identity() if seen is None or dim is None else OwnPart(dim)
        return ProjectionMatcher(kind, dim, own, nn.Identity(), squashed=False, inputs=inputs, scale=scale, seen=seen)
    if dim is None or dim < 1:
        raise InputError(f"dim is {dim}: the matcher {kind!r} needs the width of CLIP's embeddings, as in clip.dim.")
    if kind == "attention":
        heads = heads or math.gcd(HEADS, dim)
        if dim % heads:
            raise InputError(f"{heads} heads cannot share {dim} dimensions equally. Give a divisor of {dim}.")
        return AttentionMatcher(dim, heads, inputs=inputs, scale=scale)
    width = hidden or LAYERED.get(kind, 1) * dim
    wide = dim if seen is None else dim + seen.details
    image, text = (side(given, width, dim) for side, given in zip(SIDES[kind], (wide, dim), strict=True))
    settings = {"hidden": width} if kind in LAYERED else {}
    squashed = not kind.startswith("residual")
    return ProjectionMatcher(
        kind, dim, image, text, squashed=squashed, inputs=inputs, scale=scale, settings=settings, seen=seen
    )


def _check(kind: str, hidden: int | None, heads: int | None, inputs: str) -> None:
    for name, value, owners in (("hidden", hidden, tuple(LAYERED)), ("heads", heads, ("attention",))):
        if value is not None and (kind not in owners or value < 1):
            told = " and ".join(map(repr, owners))
            raise InputError(f"{name} is {value} for the matcher {kind!r}: give 1 or more, and for {told} alone.")
    if inputs not in ("unit", "raw"):
        raise InputError(f"inputs is {inputs!r}: give 'unit' for embeddings of length one, or 'raw'.")
