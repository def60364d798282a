"""What people would write under a picture of the world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from closeup.data.world.lexicon import GROUNDS, SHAPES
from closeup.data.world.scene import FAMILIES, Scene, Thing

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
