"""The models behind OVSeg's tables: a mask proposer, and CLIPs that masks and their nouns adapted, all from tiny."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from closeup.heads.mask_proposer import new_mask_proposer
from closeup.heads.trained import save_head
from closeup.recipes.run_detection import Maker
from closeup.recipes.segmentation_config import MASKS_PRESETS
from closeup.reproduce.detection_models import BACKBONE, HeadTraining
from closeup.reproduce.trainings import Training

PROPOSER = "tiny-masks"
ADAPTED = "tiny-maskadapt"
"""What ships."""

PROPOSER_PICTURES = 7_200
"""Scenes that the proposer learns from, each once."""
PICTURES = 3_600
"""Scenes whose masks of base words each training of a CLIP sees once; two trainings one after the other see twice."""
BASE = "world?count={pictures}&shapes=base"
DEPTHS = (1, 3, 6)

TOWER = "maskadapt-tower"
PROMPTS = "maskadapt-prompts"


def proposer_training() -> HeadTraining:
    """Return the training of the mask proposer that ships."""
    maker = Maker(new_mask_proposer, save_head, MASKS_PRESETS, grounds=True)
    return HeadTraining(PROPOSER, BACKBONE, maker, pictures=PROPOSER_PICTURES)


def adapted_trainings() -> dict[str, Training]:
    """Return the trainings of Table 3 by the name of their row, in the order in which they stand on each other."""
    return {
        "mask prompts": _prompts(PROMPTS),
        "tower": _tower(TOWER),
        "tower, then mask prompts": _prompts(ADAPTED, start=TOWER),
    }


def order_trainings() -> dict[str, Training]:
    """Return those of Table 5 besides."""
    return {
        "mask prompts, then tower": _tower("maskadapt-prompts-tower", start=PROMPTS),
        "both at once": _training("maskadapt-both", "tiny", {"tune": "both"}, None),
    }


def depth_trainings() -> dict[str, Training]:
    """Return those of Table 6; prompts at 3 places are those of Table 3."""
    found = {}
    for start, first, usual in ((None, "", PROMPTS), (TOWER, "tower, then ", ADAPTED)):
        for depth in DEPTHS:
            row = f"{first}mask prompts at {depth} place{'' if depth == 1 else 's'}"
            name = usual if depth == 3 else f"{PROMPTS if start is None else TOWER}-{depth}"
            found[row] = _prompts(name, start=start, depth=depth)
    return found


def _tower(name: str, *, start: str | None = None) -> Training:
    return _training(name, "tiny", {}, start)


def _prompts(name: str, *, start: str | None = None, depth: int = 3) -> Training:
    return _training(name, "tiny-prompts", {"depth": depth}, start)


def _training(name: str, preset: str, config: Mapping[str, Any], start: str | None) -> Training:
    return Training(name, PICTURES, config, start=start, recipe="maskadapt", preset=preset, images=BASE)
