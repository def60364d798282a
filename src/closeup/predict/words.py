"""Words in any form that a user may have them become one text bank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from closeup.errors import InputError
from closeup.heads.closed_words import chosen_from, own_bank
from closeup.heads.dense_detector import DenseDetector
from closeup.heads.saved import AnyDetector
from closeup.models.clip import Clip
from closeup.text import Templates, TextBank, Vocabulary, build_bank

Words: TypeAlias = Vocabulary | TextBank | Sequence[str]
"""A vocabulary, its names alone, or a bank that the same text tower made of it (to embed the words only once)."""


def as_bank(clip: Clip, words: Words, templates: str | Templates | None = None) -> TextBank:
    """Return the text bank of some words; ``templates`` None stands for "simple", or for those of a given bank.

    Raises:
        InputError: for a bank of another text tower, or of other templates than the ones asked for.
    """
    if not isinstance(words, TextBank):
        vocabulary = words if isinstance(words, Vocabulary) else Vocabulary(words)
        return build_bank(clip, vocabulary, templates="simple" if templates is None else templates)
    if words.fingerprint != clip.text_fingerprint:
        raise InputError(
            f"The text bank was made by the text tower {words.fingerprint[:12]} and this one is "
            f"{clip.text_fingerprint[:12]} ({clip.name}). Give the vocabulary itself, or a bank built with this model."
        )
    wanted = templates.name if isinstance(templates, Templates) else templates
    if wanted not in (None, words.templates):
        raise InputError(
            f"The text bank was made with the templates {words.templates!r}, not {wanted!r}. Leave the templates out, "
            "or give the vocabulary itself."
        )
    return words


def detector_bank(
    detector: AnyDetector, words: Words | None = None, templates: str | Templates | None = None
) -> TextBank:
    """Return the bank of what a detector looks for; one of a closed list has its own words and sentences.

    ``words`` None are the detector's own, ``templates`` None those that it learned with.

    Raises:
        InputError: a word that is not in a closed list, or as ``as_bank``.
    """
    if isinstance(detector, DenseDetector):
        return chosen_from(own_bank(detector), detector.name, words, templates)
    own = templates is None and not isinstance(words, TextBank)
    return as_bank(detector.clip, detector.words if words is None else words, detector.templates if own else templates)


def joined(words: Words, word: str) -> Vocabulary | TextBank:
    """Return words that hold ``word``, added as the last one where it is missing; InputError for a bank without it."""
    if isinstance(words, TextBank):
        words.vocabulary.index(word)
        return words
    vocabulary = words if isinstance(words, Vocabulary) else Vocabulary(words)
    return vocabulary if word in vocabulary else _extended(vocabulary, word)


def _extended(vocabulary: Vocabulary, word: str) -> Vocabulary:
    synonyms = dict(zip(vocabulary.names, vocabulary.synonyms, strict=True))
    novel = None
    if vocabulary.novel is not None:
        novel = [name for name, mark in zip(vocabulary.names, vocabulary.novel, strict=True) if mark]
    return Vocabulary([*vocabulary.names, word], synonyms=synonyms, novel=novel)
