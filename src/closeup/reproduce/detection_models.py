"""The detectors behind the tables of detection: F-ViT for every backbone and seed, RegionCLIP's, and what ships."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from closeup.heads.rpn import new_proposer
from closeup.heads.saved import new_c4, new_detector, save_detector
from closeup.heads.trained import save_head
from closeup.recipes.detection_config import C4_PRESETS, RPN_PRESETS
from closeup.recipes.run_detection import DetectorTraining, Maker, train_detector
from closeup.recipes.runs import is_started
from closeup.reproduce.run import Wanted
from closeup.reproduce.trainings import QUICK_SHARE

BACKBONE = "tiny-clipself"
"""What the heads that ship stand on."""
DETECTOR = "tiny-fvit"
PROPOSER = "tiny-rpn"
"""The heads that ship."""

PICTURES = 3_600
"""Scenes that a head learns from, each once."""
SEEDS = (0, 1, 2)
"""Of the head's first weights and of the order of the scenes."""

FVIT = Maker(new_detector, save_detector)
RPN = Maker(new_proposer, save_head, RPN_PRESETS)


@dataclass(frozen=True, slots=True)
class HeadTraining:
    """One head to make on a CLIP: its name, which kind, and how it differs from its preset ``tiny``."""

    name: str
    model: str
    maker: Maker
    seed: int = 0
    head: Mapping[str, Any] = field(default_factory=dict)
    pictures: int = PICTURES
    images: str = "world?count={pictures}"
    config: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    novel: tuple[str, ...] | None = None
    """Words that are not learned from; None for the data set's own."""

    def wanted(self, *, share: float = 1.0) -> DetectorTraining:
        """Return it as a training; ``share`` of the scenes, for a look at whether all of it runs."""
        return DetectorTraining(
            images=self.images.replace("{pictures}", str(max(8, round(self.pictures * share)))),
            model=self.model,
            preset="tiny",
            novel=self.novel,
            config=self.config,
            training={**self.training, **({} if share == 1 else {"steps": 2}), "seed": self.seed},
            head=self.head,
            dtype="fp16",
        )


def fvit_training(model: str, seed: int) -> HeadTraining:
    """Return the F-ViT of a backbone and a seed."""
    return HeadTraining(f"fvit-{Path(model).name}-{seed}", model, FVIT, seed)


def c4_training(model: str, seed: int, proposer: str) -> HeadTraining:
    """Return RegionCLIP's detector of a backbone and a seed, on a proposer."""
    maker = Maker(partial(new_c4, proposer=proposer), save_detector, C4_PRESETS, proposer)
    return HeadTraining(f"c4-{Path(model).name}-{seed}", model, maker, seed)


def shipped_trainings() -> dict[str, HeadTraining]:
    """Return the trainings of the heads that ship; the detector outlines things too."""
    return {
        PROPOSER: HeadTraining(PROPOSER, BACKBONE, RPN),
        DETECTOR: HeadTraining(DETECTOR, BACKBONE, FVIT, head={"masks": True}),
    }


def shipped_head(name: str, wanted: Wanted) -> str:
    """Return a head that ships by its name, or its folder where it is to be made again."""
    return shipped_or_made(shipped_trainings()[name], wanted)


def shipped_or_made(training: HeadTraining, wanted: Wanted) -> str:
    """Return a head that ships by its name, or the folder where it is made again."""
    return made_head(training, wanted) if wanted.train else training.name


def made_head(training: HeadTraining, wanted: Wanted) -> str:
    """Train a head, or go on where its training was stopped, and return its folder."""
    out = wanted.work / training.name
    asked = training.wanted(share=QUICK_SHARE if wanted.quick else 1.0)
    return str(train_detector(asked, out, training.maker, resume=is_started(out)).folder)
