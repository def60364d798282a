"""What people would write under a picture of the world, and captions that are wrong in a known way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from closeup.data.world.lexicon import AMBIGUOUS_COLOURS, ATTRIBUTES, GROUNDS, SHAPES
from closeup.data.world.scene import FAMILIES, Scene, Thing
from closeup.errors import InputError

WORDINGS: tuple[str, ...] = ("{}", "a photo of {}", "a picture of {}", "{}, close up", "there is {}")
"""How a picture of one thing may be announced; ``{}`` is a noun phrase with its article."""

_UNSAID = frozenset({"plain", "opaque"})
_ORDER = ("transparency", "colour", "pattern", "material")


def with_article(phrase: str) -> str:
    """Return the phrase after "a" or "an"."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def noun_phrase(noun: str, attributes: Mapping[str, str], *, say_all: bool = False) -> str:
    """Return "translucent red striped wooden star" for a noun and some of its attributes.

    ``plain`` and ``opaque`` go without saying unless ``say_all``.
    """
    words = [attributes[family] for family in _ORDER if family in attributes]
    return " ".join([*(word for word in words if say_all or word not in _UNSAID), noun])


def describe(thing: Thing, families: Sequence[str], noun: str | None = None) -> str:
    """Return a thing's noun phrase with the attributes of the given families."""
    attributes = thing.attributes
    return noun_phrase(noun or thing.shape, {family: attributes[family] for family in families})


def any_noun(name: str, rng: np.random.Generator) -> str:
    """Return one of the nouns that captions use for a class."""
    nouns = SHAPES.get(name) or GROUNDS[name]
    return nouns[int(rng.integers(len(nouns)))]


def scene_caption(scene: Scene, rng: np.random.Generator) -> str:
    """Write a caption as the web would: some of the things, few attributes, often the noun alone, synonyms."""
    mentioned = [thing for thing in scene.things if rng.random() < 0.6] or list(scene.things[-1:])
    phrases = []
    for index in rng.permutation(len(mentioned))[:4]:
        thing = mentioned[int(index)]
        families = [family for family in FAMILIES if rng.random() < (0.35 if family == "colour" else 0.15)]
        phrases.append(with_article(describe(thing, families, any_noun(thing.shape, rng))))
    ground = any_noun(scene.grounds[int(rng.integers(len(scene.grounds)))], rng)
    if not phrases:
        return ground
    listed = phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]
    return f"{listed} on {ground}" if rng.random() < 0.5 else listed


def full_caption(thing: Thing) -> str:
    """Return the caption that names every attribute of a thing: the positive of an FG-OVD item."""
    return with_article(noun_phrase(thing.shape, thing.attributes, say_all=True))


def alternatives(family: str, value: str) -> list[str]:
    """Return the values of a family that are a clear mistake for ``value`` (near colours are left out)."""
    near = {value}.union(*(group for group in AMBIGUOUS_COLOURS if value in group))
    return [other for other in ATTRIBUTES[family] if other not in near]


def hard_negatives(thing: Thing, rng: np.random.Generator, *, changes: int | str, count: int = 10) -> tuple[str, ...]:
    """Return captions like ``full_caption`` with some attributes replaced, all different from it and each other.

    ``changes`` is how many families change (1 is FG-OVD's Hard, 2 Medium, 3 Easy) or the name of the one
    that does. Fewer than ``count`` come back where a family has too few other values.
    """
    if isinstance(changes, str):
        if changes not in ATTRIBUTES:
            raise InputError(f"`changes` must be 1 to 4 or one of {list(ATTRIBUTES)}, but got {changes!r}.")
        values = alternatives(changes, thing.attributes[changes])
        picked = [values[int(i)] for i in rng.permutation(len(values))[:count]]
        changed = [{**thing.attributes, changes: value} for value in picked]
    else:
        changed = _change_many(thing.attributes, rng, changes, count)
    return tuple(with_article(noun_phrase(thing.shape, attributes, say_all=True)) for attributes in changed)


def _change_many(
    attributes: Mapping[str, str], rng: np.random.Generator, changes: int, count: int
) -> list[dict[str, str]]:
    if not 1 <= changes <= len(FAMILIES):
        raise InputError(f"`changes` must be 1 to {len(FAMILIES)} or a family's name, but got {changes}.")
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for _ in range(40 * count):
        changed = dict(attributes)
        for index in rng.permutation(len(FAMILIES))[:changes]:
            family = FAMILIES[int(index)]
            values = alternatives(family, attributes[family])
            changed[family] = values[int(rng.integers(len(values)))]
        found.setdefault(tuple(changed.values()), changed)
        if len(found) == count:
            break
    return list(found.values())
