"""The learning rate as a function of the step."""

from __future__ import annotations

from math import cos, pi


def warmup_cosine(step: int, *, steps: int, warmup: int, final: float = 0.0) -> float:
    """Return the factor on the base rate: linear over ``warmup`` steps, then half a cosine down to ``final``."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    return final + (1 - final) * 0.5 * (1 + cos(pi * min(progress, 1.0)))
