"""The words of the world: shapes, the four attribute families of FG-OVD, grounds, and how captions may call them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from closeup.data.lexicon import NEAR_COLOURS, SHADES, Lexicon

SHAPES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "arrow": ("arrow", "pointer"),
        "bell": ("bell", "chime"),
        "bolt": ("bolt", "lightning"),
        "bottle": ("bottle", "flask"),
        "circle": ("circle", "disc"),
        "cloud": ("cloud",),
        "crescent": ("crescent", "moon"),
        "cross": ("cross", "plus"),
        "cup": ("cup", "mug"),
        "drop": ("drop", "droplet"),
        "fish": ("fish",),
        "flower": ("flower", "blossom"),
        "gear": ("gear", "cog"),
        "heart": ("heart",),
        "house": ("house", "hut"),
        "key": ("key",),
        "leaf": ("leaf",),
        "mushroom": ("mushroom", "toadstool"),
        "ring": ("ring", "hoop"),
        "square": ("square", "box"),
        "star": ("star",),
        "tree": ("tree", "pine"),
        "triangle": ("triangle", "wedge"),
        "umbrella": ("umbrella", "parasol"),
    }
)
"""Thing classes, and the nouns that captions use for each; the first noun is the class name."""

NOVEL: tuple[str, ...] = ("bolt", "cup", "fish", "leaf", "ring", "star")
"""The classes held out as novel in detection and segmentation protocols; every other shape is a base class."""

_HUES: Mapping[str, tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]] = MappingProxyType(
    {
        "red": ((246, 138, 132), (216, 36, 34), (116, 8, 14)),
        "orange": ((255, 190, 122), (246, 128, 18), (158, 76, 6)),
        "yellow": ((255, 244, 150), (246, 216, 26), (150, 128, 4)),
        "green": ((150, 226, 140), (40, 164, 52), (8, 86, 26)),
        "blue": ((140, 188, 252), (32, 92, 222), (10, 32, 118)),
        "purple": ((204, 158, 240), (140, 56, 200), (72, 16, 110)),
        "pink": ((255, 204, 224), (246, 112, 176), (174, 38, 104)),
        "brown": ((196, 154, 116), (132, 84, 46), (74, 42, 18)),
        "grey": ((196, 196, 198), (128, 128, 130), (70, 70, 72)),
    }
)

COLOURS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        **{f"{shade}{hue}": rgb for hue, triple in _HUES.items() for shade, rgb in zip(SHADES, triple, strict=True)},
        "white": (246, 246, 244),
        "black": (22, 22, 24),
    }
)
"""The 29 colours of FG-OVD (nine hues in three shades, white and black), as sRGB."""

PATTERNS: tuple[str, ...] = ("plain", "striped", "dotted", "checkered", "zigzag", "woven", "perforated")
"""What is drawn on a thing; ``plain`` is never said in a caption unless all attributes are."""

MATERIALS: tuple[str, ...] = ("plastic", "metal", "wooden", "stone", "fabric", "paper", "leather")
"""What a thing is made of: a shading and a fine texture over its colour."""

TRANSPARENCIES: tuple[str, ...] = ("opaque", "translucent", "transparent")
"""How much of the ground shows through a thing."""

ATTRIBUTES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"colour": tuple(COLOURS), "pattern": PATTERNS, "material": MATERIALS, "transparency": TRANSPARENCIES}
)
"""The four attribute families of FG-OVD (arXiv 2311.17518) and their values in this world."""

WORLD = Lexicon(ATTRIBUTES, NEAR_COLOURS)
"""The attribute words of the world's captions, and which colours are too near each other to be told apart."""

GROUNDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "grass": ("grass", "lawn"),
        "sand": ("sand", "beach"),
        "water": ("water", "sea"),
        "sky": ("sky",),
        "brick": ("brick", "bricks"),
        "snow": ("snow",),
        "gravel": ("gravel", "pebbles"),
        "planks": ("planks", "floorboards"),
        "tiles": ("tiles",),
        "carpet": ("carpet", "rug"),
    }
)
"""Stuff classes, and the nouns that captions use for each."""

NAMES: tuple[str, ...] = (*SHAPES, *GROUNDS)
"""All class names of the world in label order: things first, then stuff."""

THINGS: tuple[bool, ...] = (*(True for _ in SHAPES), *(False for _ in GROUNDS))
"""Which of ``NAMES`` are things."""
