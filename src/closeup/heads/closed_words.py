"""The words of a head that knows a closed list, and those of a user among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F

from closeup._types import Embeddings
from closeup.errors import InputError, suggest
from closeup.heads.dense_predictor import ClosedHead
from closeup.text import Templates, TextBank, Vocabulary
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


def own_bank(head: ClosedHead) -> TextBank:
    """Return the words of a head as it embedded them: of unit length, or zeros where language takes no part."""
    prompting, contexts = head.head.prompting, head.head.config.contexts
    templates = f"learned contexts ({contexts})" if contexts else head.templates
    rows: Embeddings = torch.zeros(len(head.words), head.eyes.dim)
    if prompting is None:
        templates = "none"
    else:
        rows = F.normalize(prompting.bank.detach().float().cpu(), dim=1)
    mean = "normalise-then-mean" if prompting is not None and not contexts else "none"
    vocabulary = Vocabulary(head.words)
    return TextBank(rows, torch.arange(len(vocabulary)), vocabulary, templates, mean, head.fingerprint)


def chosen_from(
    own: TextBank,
    name: str,
    words: Vocabulary | TextBank | Sequence[str] | None = None,
    templates: str | Templates | None = None,
) -> TextBank:
    """Return the bank of some of a head's words, None for all, as they are in its ``own_bank``.

    Raises:
        InputError: a word that the head does not know, or a bank or templates that are not its own.
    """
    wanted = templates.name if isinstance(templates, Templates) else templates
    if wanted not in (None, own.templates):
        raise InputError(
            f"The words of {name!r} were embedded when it was trained (templates: {own.templates}), and {wanted!r} "
            "cannot be put around them now. Leave the templates out."
        )
    if words is None:
        return own
    if isinstance(words, TextBank):
        if words.fingerprint != own.fingerprint:
            raise InputError(
                f"The text bank was not made by {name!r}, whose words are its own. Give the vocabulary itself."
            )
        return words
    vocabulary = words if isinstance(words, Vocabulary) else Vocabulary(words)
    rows, owner = places_among(vocabulary, own.names, name)
    return replace(own, embeddings=own.embeddings[rows], owner=torch.tensor(owner), vocabulary=vocabulary)


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
