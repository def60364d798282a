"""Every error Closeup raises on purpose: what was wrong, the value received, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CloseupError(Exception):
    """Root of all expected errors; the command line prints its text in one line and exits with 2."""


class InputError(CloseupError, ValueError):
    """An argument, a box, a mask or a word that cannot be used as given."""


class ImageError(InputError):
    """A file or array that is not a usable image."""


class DataError(InputError):
    """An annotation file or data folder that does not hold what it should."""


class ModelError(CloseupError):
    """A model that is unknown, or weights that do not belong to it."""


class ConfigError(InputError):
    """A configuration with an unknown key or a value outside its range."""


def suggest(name: str, choices: Iterable[str], limit: int = 5) -> str:
    """Return the tail of an "unknown name" message: near misses when there are any, else the choices."""
    known = sorted(set(choices))
    lowered = {choice.lower(): choice for choice in reversed(known)}
    near = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=limit, cutoff=0.5)]
    if near:
        return "Did you mean " + " or ".join(repr(choice) for choice in near) + "?"
    shown = ", ".join(repr(choice) for choice in known[:limit])
    more = f" and {len(known) - limit} more" if len(known) > limit else ""
    return f"Available: {shown}{more}."
