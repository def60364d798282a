"""Every reproduction by name; a new one is one entry."""

from __future__ import annotations

from collections.abc import Mapping

from closeup.errors import InputError, suggest
from closeup.reproduce.clipself import CLIPSELF
from closeup.reproduce.denseclip import DENSECLIP
from closeup.reproduce.detection import DETECTION
from closeup.reproduce.finegrained import FINEGRAINED
from closeup.reproduce.ovseg import OVSEG
from closeup.reproduce.regionclip import REGIONCLIP
from closeup.reproduce.run import Reproduction
from closeup.reproduce.segmentation import SEGMENTATION

REPRODUCTIONS: Mapping[str, Reproduction] = {
    what.name: what for what in (CLIPSELF, REGIONCLIP, DETECTION, OVSEG, SEGMENTATION, DENSECLIP, FINEGRAINED)
}


def get_reproduction(name: str) -> Reproduction:
    """Return a reproduction; InputError with near misses for an unknown name."""
    if name not in REPRODUCTIONS:
        raise InputError(f"Unknown reproduction {name!r}. {suggest(name, REPRODUCTIONS)}")
    return REPRODUCTIONS[name]
