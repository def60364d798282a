"""Words that somebody asks for, among those of a head of a closed list."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from closeup._types import Labels
from closeup.errors import InputError, suggest
from closeup.text.names import clean_name


def places_of(asked: Sequence[str], words: Sequence[str], name: str) -> Labels:
    """Return which of a head's words each one asked for is; any of them in any order.

    Words are compared in any case, ``_`` as a space, as the rule "vild" of ``text.names`` reads them; ``name`` is the
    head's.

    Raises:
        InputError: a word that the head does not know.
    """
    known = {_read(word): place for place, word in enumerate(words)}
    for word in asked:
        if _read(word) not in known:
            raise InputError(
                f"{name!r} is of a closed list of {len(words)} words, and {word!r} is none of them. "
                f"{suggest(word, words)}"
            )
    return torch.tensor([known[_read(word)] for word in asked], dtype=torch.long)


def _read(word: str) -> str:
    return clean_name(word).casefold()
