"""Captions that are wrong in a known way: attributes of a right one replaced by values that are clear mistakes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations
from math import prod
from typing import NamedTuple

import numpy as np

from closeup.data.lexicon import Lexicon, Mention
from closeup.errors import InputError

COUNT = 10
"""Wrong captions of a right one in FG-OVD, where there are as many."""

MOST = 4
"""The most attributes that can be asked to change at once."""

_ARTICLE = re.compile(r"\b(an?)(\s+)$", re.IGNORECASE)


def hard_negatives(
    caption: str, lexicon: Lexicon, rng: np.random.Generator, *, changes: int | str, count: int = COUNT
) -> tuple[str, ...]:
    """Return up to ``count`` captions like a right one with some attributes replaced, different from it and each other.

    ``changes`` is how many attribute words change (1 is FG-OVD's Hard, 2 Medium, 3 Easy), or the name of a family of
    the lexicon, of which one word changes. Which words change is drawn first, so that a family of few values is asked
    about as often as one of many. Fewer come back where there are too few other values, none where the caption names
    too few attributes. FG-OVD writes "a orange"; here the article follows its word, as it would tell the answer else.

    Raises:
        InputError: ``changes`` is not 1 to 8 and no family, or ``count`` is less than 1.
    """
    if count < 1:
        raise InputError(f"`count` must be at least 1 caption, but got {count}.")
    if isinstance(changes, str):
        lexicon.check(changes)
    elif not 1 <= changes <= MOST:
        raise InputError(f"`changes` must be 1 to {MOST} attributes or a family's name, but got {changes}.")
    found = ((mention, lexicon.alternatives(mention.family, mention.value)) for mention in lexicon.find(caption))
    slots = [_Slot(mention, values) for mention, values in found if values]
    if isinstance(changes, str):
        places: Sequence[tuple[_Slot, ...]] = [(slot,) for slot in slots if slot.mention.family == changes]
    else:
        places = list(combinations(slots, changes))
    return _draw(caption, places, rng, count)


def other_captions(own: str, pool: Sequence[str], rng: np.random.Generator, count: int = COUNT) -> tuple[str, ...]:
    """Return up to ``count`` captions of a pool of different ones, none of them ``own``: FG-OVD's Trivial negatives."""
    picked = [pool[i] for i in rng.choice(len(pool), min(count + 1, len(pool)), replace=False).tolist()]
    return tuple(caption for caption in picked if caption != own)[:count]


class _Slot(NamedTuple):
    """A word of a caption, and what may stand in its place."""

    mention: Mention
    values: list[str]


def _draw(caption: str, places: Sequence[tuple[_Slot, ...]], rng: np.random.Generator, count: int) -> tuple[str, ...]:
    # Combinations of values that are left at each choice of words, drawn when it is first chosen.
    left: dict[int, list[int]] = {}
    untried = list(range(len(places)))
    found: list[str] = []
    while untried and len(found) < count:
        place = untried[int(rng.integers(len(untried)))]
        if place not in left:
            total = prod(len(slot.values) for slot in places[place])
            left[place] = rng.choice(total, min(count, total), replace=False).tolist()
        found.append(_replace(caption, places[place], left[place].pop()))
        if not left[place]:
            untried.remove(place)
    return tuple(dict.fromkeys(found))


def _replace(caption: str, slots: Sequence[_Slot], number: int) -> str:
    """Return the caption with one value in each slot: the choice that a number below the product of their counts is."""
    parts, end = [], 0
    for mention, values in slots:
        number, digit = divmod(number, len(values))
        before, said, value = caption[end : mention.start], caption[mention.start : mention.end], values[digit]
        parts += [_mend(before, value), _like(said, caption, value)]
        end = mention.end
    return "".join([*parts, caption[end:]])


def _mend(before: str, value: str) -> str:
    """Return what stands before a value, an article at its end fitting the value."""
    match = _ARTICLE.search(before)
    if match is None:
        return before
    return before[: match.start()] + match[1][0] + ("n" if value[0] in "aeiou" else "") + match[2]


def _like(said: str, caption: str, value: str) -> str:
    """Return a value as the caption writes: with a capital where the word had one, underscores where it has some."""
    written = value.replace(" ", "_") if re.search(r"\b(?:light|dark)_", caption) else value
    return written[0].upper() + written[1:] if said[0].isupper() else written
