"""Words of a user among those of a head that knows a closed list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from closeup.errors import InputError, suggest
from closeup.text import Vocabulary
from closeup.text.names import clean_name, clean_names

SHOWN = 5
"""Words that an error names at most."""


class Places(NamedTuple):
    """Which of the known words are meant, and the label of the vocabulary that each of them stands for."""

    rows: list[int]
    owner: list[int]


def places_among(vocabulary: Vocabulary, known: Sequence[str], head: str) -> Places:
    """Return the known words that a vocabulary means, in its order; names are cleaned and compared in any case.

    A name that is known is that word alone; any other stands for all of its synonyms that are known.

    Raises:
        InputError: words that are not known and have no synonym that is, or two that are one known word; the message
            names ``head``.
    """
    place = {_key(word): row for row, word in reversed(list(enumerate(known)))}
    clean_names(vocabulary.names)
    meant: list[list[int]] = []
    for synonyms in vocabulary.synonyms:
        named = synonyms[:1] if _key(synonyms[0]) in place else synonyms
        meant.append(list(dict.fromkeys(place[key] for key in map(_key, named) if key in place)))
    strange = [name for name, rows in zip(vocabulary.names, meant, strict=True) if not rows]
    if strange:
        raise InputError(_unknown(strange, known, head))
    label_of: dict[int, int] = {}
    for label, rows in enumerate(meant):
        for row in rows:
            if row in label_of:
                both = f"{vocabulary.names[label_of[row]]!r} and {vocabulary.names[label]!r}"
                raise InputError(f"The words {both} are both the word {known[row]!r} of {head!r}. Leave one out.")
            label_of[row] = label
    return Places(list(label_of), list(label_of.values()))


def _key(word: str) -> str:
    return clean_name(word).casefold()


def _unknown(strange: Sequence[str], known: Sequence[str], head: str) -> str:
    listed = ", ".join(map(repr, strange[:SHOWN]))
    more = f" and {len(strange) - SHOWN} more" if len(strange) > SHOWN else ""
    words = "The word {} is" if len(strange) == 1 else "The words {} are"
    return (
        f"{words.format(listed + more)} not among the {len(known)} that {head!r} learned, and it knows no others. "
        f"{suggest(strange[0], known)}"
    )
