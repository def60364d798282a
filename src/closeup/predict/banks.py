"""The text bank that a scorer compares pictures with: its CLIP's, or one that it makes itself."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from closeup.errors import InputError
from closeup.predict.scorers import DenseScorer, Scorer
from closeup.predict.words import Words, as_bank, joined
from closeup.text import Templates, TextBank


@runtime_checkable
class OwnWords(Protocol):
    """A scorer that knows a closed list of words, and makes their banks itself: no text tower is asked."""

    def bank_of(self, words: Words | None = None, templates: str | Templates | None = None) -> TextBank:
        """Return the bank of some of its words, None for all; InputError for others, or for other templates."""
        ...

    def novel_of(self, bank: TextBank) -> list[bool]:
        """Return which words of a bank it did not learn, though it knows them."""
        ...


def bank_for(
    scorer: Scorer,
    words: Words | None = None,
    templates: str | Templates | None = None,
    *,
    background: float | str | None = None,
) -> TextBank:
    """Return the bank of some words for a scorer, with the background among them where it is a word.

    Raises:
        InputError: as ``as_bank``, or as the scorer does where it makes its own; no words for a scorer that has none
            of its own, or a background that is neither a word nor a probability.
    """
    if background is not None and not isinstance(background, str) and not 0 <= background <= 1:
        raise InputError(f"background is {background}: give a probability from 0 to 1, or a word.")
    own = scorer if isinstance(scorer, OwnWords) else None
    if words is None:
        if own is None:
            raise InputError(f"There are no words for {scorer.clip.name!r} to compare the picture with. Give some.")
        words = own.bank_of(None, templates)
    if isinstance(background, str):
        words = joined(words, background)
    matcher = scorer.matcher if isinstance(scorer, DenseScorer) else None
    return as_bank(scorer.clip, words, templates, matcher) if own is None else own.bank_of(words, templates)
