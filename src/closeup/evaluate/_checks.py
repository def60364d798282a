"""What every metric refuses: labels outside the vocabulary, and lengths that do not agree."""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor

from closeup._types import IGNORE
from closeup.errors import InputError


def check_labels(labels: Int[Tensor, "*shape"], words: int, what: str) -> None:
    """Raise InputError unless every label is IGNORE or an index below ``words``."""
    if not labels.numel():
        return
    low, high = int(labels.min()), int(labels.max())
    if low < IGNORE or high >= words:
        wrong = low if low < IGNORE else high
        raise InputError(
            f"{what} must be indices from 0 to {words - 1}, or {IGNORE} for none, but {wrong} was among them. "
            "Map the labels to the order of the vocabulary first."
        )


def check_ks(ks: tuple[int, ...]) -> None:
    """Raise InputError unless the ranks asked for are positive and there is at least one."""
    if not ks or min(ks) < 1:
        raise InputError(f"ks must hold at least one rank and each must be 1 or more, but ks={ks}.")
