"""Words in any form that a user may have them become one text bank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from closeup.errors import InputError
from closeup.heads.closed_words import chosen_from, own_bank
from closeup.heads.dense_detector import DenseDetector
from closeup.heads.saved import AnyDetector
from closeup.match import Matcher
from closeup.models.clip import Clip
from closeup.predict.matching import check_matcher, wants_unit
from closeup.text import Templates, TextBank, Vocabulary, build_bank

Words: TypeAlias = Vocabulary | TextBank | Sequence[str]
"""A vocabulary, its names alone, or a bank that the same text tower made of it (to embed the words only once)."""

UNIT, RAW = "normalise-then-mean", "mean-of-raw"
"""The means that make unit and raw banks."""


def as_bank(
    clip: Clip, words: Words, templates: str | Templates | None = None, matcher: Matcher | None = None
) -> TextBank:
    """Return the text bank of some words; ``templates`` None stands for "simple", or for those of a given bank.

    For a ``matcher`` of raw embeddings it is one of raw embeddings (their mean, where there are several templates).

    Raises:
        InputError: for a bank of another text tower, of other templates than the ones asked for, or of unit embeddings
            for a matcher of raw ones; and for a matcher that is not as wide as the model.
    """
    check_matcher(matcher, clip)
    if not isinstance(words, TextBank):
        vocabulary = words if isinstance(words, Vocabulary) else Vocabulary(words)
        mean = UNIT if wants_unit(matcher) else RAW
        return build_bank(clip, vocabulary, templates="simple" if templates is None else templates, mean=mean)
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
    if matcher is not None and not wants_unit(matcher) and words.mean != RAW:
        raise InputError(
            f"The text bank was made with the mean {words.mean!r}, and the matcher {matcher.name!r} was trained on raw "
            f"embeddings. Build it with mean={RAW!r}, or give the vocabulary itself."
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
