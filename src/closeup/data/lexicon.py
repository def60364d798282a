"""Words for how things look: families of attributes, and which of their values are too near to be told apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

from closeup.errors import InputError, suggest

SHADES: tuple[str, ...] = ("light ", "", "dark ")
"""The shades of a hue, as they stand before its name."""

HUES: tuple[str, ...] = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "grey")

COLOUR_NAMES: tuple[str, ...] = (*(f"{shade}{hue}" for hue in HUES for shade in SHADES), "white", "black")
"""The 29 colours of FG-OVD: nine hues in three shades, white and black."""

NEAR_COLOURS: tuple[frozenset[str], ...] = tuple(
    frozenset(names)
    for names in (
        *({f"light {hue}", hue} for hue in HUES),
        *({hue, f"dark {hue}"} for hue in HUES),
        {"brown", "dark orange"},
        {"brown", "dark red"},
        {"light brown", "brown"},
        {"dark yellow", "brown"},
        {"light pink", "pink", "light red"},
        {"pink", "light purple"},
        {"dark pink", "purple"},
        {"white", "light grey"},
        {"black", "dark grey", "dark brown"},
        {"orange", "dark orange"},
        {"light orange", "light brown"},
    )
)
"""Groups of colours too near each other to be a hard negative of one another."""


class Mention(NamedTuple):
    """Where a text names an attribute: the family, the value as lexicons write it, and the characters it takes."""

    family: str
    value: str
    start: int
    end: int


@dataclass(frozen=True)
class Lexicon:
    """Families of attribute words.

    ``families`` are the values by family; ``near`` are groups of values of which none is a clear mistake for another.
    ``also`` are words that captions say and nobody would put in their place, by family; they go before ``families``
    where a word is in both.

    Raises:
        InputError: a word is in two families, or ``also`` names a family that there is not.
    """

    families: Mapping[str, tuple[str, ...]]
    near: tuple[frozenset[str], ...] = ()
    also: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = Counter(value for values in self.families.values() for value in values)
        twice = [value for value, count in counts.items() if count > 1]
        if twice:
            raise InputError(f"The lexicon has {twice[0]!r} twice; a word belongs to one family, once.")
        for word, family in self.also.items():
            if family not in self.families:
                raise InputError(f"The lexicon has {word!r} in an unknown family {family!r}; see `families`.")

    def check(self, family: str) -> None:
        """Raise InputError unless there is such a family."""
        if family not in self.families:
            raise InputError(f"Unknown family of attributes {family!r}. {suggest(family, self.families)}")

    def alternatives(self, family: str, value: str) -> list[str]:
        """Return the values of a family that are a clear mistake for ``value`` (near ones are left out).

        Raises:
            InputError: there is no such family.
        """
        self.check(family)
        near = {value}.union(*(group for group in self.near if value in group))
        return [other for other in self.families[family] if other not in near]

    def find(self, text: str) -> list[Mention]:
        """Return the attributes that a text names, in its order.

        Whole words, the longest that fits ("dark blue" before "blue"), in any case; ``_`` and ``-`` stand for a space.
        A word counts wherever it stands: "a glass of water" names a material.
        """
        found = []
        for match in self._pattern.finditer(text):
            value = re.sub(r"[ _-]", " ", match[0].lower())
            found.append(Mention(self._family_of[value], value, match.start(), match.end()))
        return found

    @cached_property
    def _family_of(self) -> dict[str, str]:
        listed = {value: family for family, values in self.families.items() for value in values}
        return {**listed, **self.also}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest = sorted(self._family_of, key=len, reverse=True)
        words = "|".join(re.escape(word).replace(r"\ ", "[ _-]") for word in longest)
        return re.compile(rf"\b(?:{words})\b" if longest else r"(?!)", re.IGNORECASE)


FG_OVD = Lexicon(
    families=MappingProxyType(
        {
            "colour": COLOUR_NAMES,
            "material": (
                "text",
                "stone",
                "wood",
                "rattan",
                "fabric",
                "crochet",
                "wool",
                "leather",
                "velvet",
                "metal",
                "paper",
                "plastic",
                "glass",
                "ceramic",
            ),
            "pattern": (
                "plain",
                "striped",
                "dotted",
                "checkered",
                "woven",
                "studded",
                "perforated",
                "floral",
                "logo",
            ),
            "transparency": ("opaque", "translucent", "transparent"),
        }
    ),
    near=(*NEAR_COLOURS, frozenset({"wood", "wooden"}), frozenset({"text", "logo"})),
    # Its captions say "a text pattern" and "a textured pot", and its pattern file takes both for patterns.
    also=MappingProxyType({"wooden": "material", "text": "pattern", "textured": "pattern"}),
)
"""The words of FG-OVD (arXiv 2311.17518, ``lorebianchi98/FG-OVD``): 29 colours, 14 materials, 9 patterns, 3 kinds of
transparency. Which colours are near is ours: theirs are not written down outside their code."""
