"""The patterns of the world: where a thing carries its second colour."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from closeup.data.world.lexicon import PATTERNS
from closeup.errors import InputError, suggest

Plane = Float[np.ndarray, "rows cols"]


def pattern_field(pattern: str, u: Plane, v: Plane) -> Plane:
    """Return 1 where the pattern is inked and 0 elsewhere, for coordinates where the thing spans -1 to 1."""
    if pattern not in PATTERNS:
        raise InputError(f"Unknown pattern {pattern!r}. {suggest(pattern, PATTERNS)}")
    if pattern == "plain":
        return np.zeros_like(u)
    if pattern == "striped":
        inked = np.mod(u * 3, 1) < 0.42
    elif pattern == "zigzag":
        inked = np.mod(v * 2.5 + 0.8 * np.abs(np.mod(u * 2.5, 1) - 0.5), 1) < 0.4
    elif pattern == "checkered":
        inked = (np.floor(u * 3) + np.floor(v * 3)) % 2 > 0
    elif pattern == "woven":
        upright = (np.floor(u * 2) + np.floor(v * 2)) % 2 > 0
        inked = np.where(upright, np.mod(u * 8, 1) < 0.4, np.mod(v * 8, 1) < 0.4)
    else:
        inked = _spots(u, v, frequency=3.0, radius=0.3 if pattern == "dotted" else 0.24)
    result: Plane = inked.astype(np.float32)
    return result


def _spots(u: Plane, v: Plane, frequency: float, radius: float) -> np.ndarray:
    return (np.mod(u * frequency, 1) - 0.5) ** 2 + (np.mod(v * frequency, 1) - 0.5) ** 2 < radius**2
