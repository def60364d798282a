"""The models behind CLIPSelf's tables: those that ship, or the trainings that make them again from tiny."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from closeup.reproduce.trainings import ABLATION_PICTURES, ABLATION_SIZE, PICTURES, Training

PATCHES = "tiny-clipself-patches"
PROPOSALS = "tiny-clipself-proposals"
KEPT = "tiny-clipself"

RECOVERY_PICTURES = 40_000
"""Scenes in which the adapted model gets back what it forgot."""
RECOVERY_RATE = 5e-4
"""Half the rate of learning, so that what is learned stays."""

SPLITS = (2, 4, 6, 8)
BLOCKS = (1, 2, 4, 6)
SIZES = (64, 128, 192, 256)


def shipped_trainings() -> list[Training]:
    """Return the trainings of the models that ship, in the order in which they stand on each other."""
    both = {"regions": "patches-and-proposals", "keep_global": 1.0}
    return [
        Training(PROPOSALS, PICTURES, {"regions": "proposals"}),
        Training(PATCHES, PICTURES, {"regions": "patches"}),
        Training(KEPT, RECOVERY_PICTURES, both, {"rate": RECOVERY_RATE}, start=PROPOSALS),
    ]


def ablation_trainings() -> dict[str, dict[str, Training]]:
    """Return the trainings of each ablation by its table's key and its row's name; all are short.

    One that is in two tables has one name, and is made once.
    """
    alone = {"size": ABLATION_SIZE, "scales": ()}
    proposals = {**alone, "regions": "proposals"}
    patches = _short("patches", alone)
    whole = _short("proposals", proposals)
    splits = {
        f"M = {count}": patches if count == 6 else _short(f"splits-{count}", {**alone, "max_split": count})
        for count in SPLITS
    }
    blocks = {
        ("1 block" if count == 1 else f"{count} blocks"): whole
        if count == 6
        else _short(f"blocks-{count}", {**proposals, "blocks": count})
        for count in BLOCKS
    }
    sizes = {
        f"{size} px": whole if size == ABLATION_SIZE else _short(f"size-{size}", {**proposals, "size": size})
        for size in SIZES
    }
    drawn = _short("scales", {**proposals, "size": max(SIZES), "scales": SIZES[1:]})
    sources = {
        "image patches": patches,
        "proposals: the world's boxes": whole,
        "proposals: found in the picture": _short("found", {**proposals, "regions_from": "found"}),
        "patches at one visit, proposals at another": _short("both", {**alone, "regions": "patches-and-proposals"}),
        "masks": _short("masks", {**alone, "regions": "masks"}),
        "whole pictures alone": _short("image-only", {**alone, "image_only": True}),
    }
    return {
        "splits": splits,
        "blocks": blocks,
        "size": {**sizes, f"drawn from {', '.join(map(str, SIZES[1:]))} px": drawn},
        "sources": sources,
    }


def _short(name: str, config: Mapping[str, Any]) -> Training:
    return Training(f"short-{name}", ABLATION_PICTURES, config)
