"""The options ``--window`` and ``--stride``."""

from __future__ import annotations

from closeup.errors import InputError


def check_window(window: int | None, stride: int | None) -> None:
    """Raise InputError for sides below one pixel, a stride alone, or strides that leave gaps; all in pixels."""
    for name, value in (("window", window), ("stride", stride)):
        if value is not None and value < 1:
            raise InputError(f"--{name} {value} is below one pixel.")
    if stride is None:
        return
    if window is None:
        raise InputError(f"--stride {stride} without a --window: give both, or neither.")
    if stride > window:
        raise InputError(f"--stride {stride} is larger than --window {window}: pixels would be left out.")
