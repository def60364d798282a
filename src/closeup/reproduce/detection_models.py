"""The detectors behind the tables of detection: one F-ViT for every backbone and seed."""

from __future__ import annotations

from pathlib import Path

from closeup.heads.saved import new_detector, save_detector
from closeup.recipes.run_detection import DetectorTraining, Maker, train_detector
from closeup.recipes.runs import is_started

PICTURES = 3_600
"""Scenes that a detector learns from, each once."""
SEEDS = (0, 1, 2)
"""Of the head's first weights and of the order of the scenes."""


def detector_training(model: str, seed: int, *, share: float = 1.0) -> DetectorTraining:
    """Return the training of one F-ViT; ``share`` of the scenes, for a look at whether all of it runs."""
    return DetectorTraining(
        images=f"world?count={max(8, round(PICTURES * share))}",
        model=model,
        preset="tiny",
        training={"seed": seed},
        dtype="fp16",
    )


def made_detector(model: str, seed: int, work: Path, *, share: float = 1.0) -> Path:
    """Train a detector, or go on where its training was stopped, and return its folder."""
    out = work / f"fvit-{Path(model).name}-{seed}"
    maker = Maker(new_detector, save_detector)
    return train_detector(detector_training(model, seed, share=share), out, maker, resume=is_started(out)).folder
