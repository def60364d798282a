"""The learning rate as a function of the step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import cos, pi

POWER = 0.9
"""Of the polynomial fall; mmsegmentation's, and DenseCLIP's (arXiv 2112.01518)."""


def warmup_cosine(step: int, *, steps: int, warmup: int, final: float = 0.0) -> float:
    """Return the factor on the base rate: linear over ``warmup`` steps, then half a cosine down to ``final``."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    return final + (1 - final) * 0.5 * (1 + cos(pi * min(progress, 1.0)))


def warmup_polynomial(step: int, *, steps: int, warmup: int, final: float = 0.0) -> float:
    """Return the factor on the base rate: a power of what is left of all steps, down to ``final``.

    The warm-up is part of the fall: it rises linearly to where the fall has come by then.
    """
    left: float = max(1 - step / steps, 0.0) ** POWER
    fall = final + (1 - final) * left
    return fall * (step + 1) / warmup if step < warmup else fall


DECAYS: Mapping[str, Callable[..., float]] = {"cosine": warmup_cosine, "polynomial": warmup_polynomial}
"""By name."""
