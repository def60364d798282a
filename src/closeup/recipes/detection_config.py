"""How a detector's head is trained: on which canvas, in which words, how long and how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from closeup.config import Config
from closeup.errors import ConfigError
from closeup.recipes.config import TrainConfig


@dataclass(frozen=True)
class DetectionConfig(Config):
    """The pictures that a head sees, and the sentences around its words.

    Raises:
        ConfigError: a value outside its range.

    Source of the defaults: ``wusize/CLIPSelf`` ``F-ViT/configs/ov_coco``.
    """

    size: int = 640
    """Side of the canvas in pixels; the paper's maps are distilled at 1024 and its detectors trained at 640."""
    jitter: tuple[float, ...] = (0.1, 2.0)
    """The least and the greatest size of a picture over that of the canvas; none for pictures as they are."""
    flip: bool = True
    """Mirror half of the pictures."""
    templates: str = "vild-63"
    """The sentences around a word."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"`size` must be a side in pixels, but got {self.size}.")
        if self.jitter and not (len(self.jitter) == 2 and 0 < self.jitter[0] <= self.jitter[1]):
            raise ConfigError(f"`jitter` must be two sizes, the smaller first, or nothing, but got {self.jitter}.")


def paper(images: int) -> tuple[DetectionConfig, TrainConfig, Mapping[str, Any]]:
    """Return F-ViT's training for OV-COCO, and what it changes in the head's settings: nothing.

    Three epochs of batches of 64, AdamW at 1e-4 with decay 0.1, gradients clipped at 1, 250 steps of warm-up; the
    official rate stays as it is after that, and so does this one.
    """
    return (
        DetectionConfig(),
        TrainConfig(
            steps=3 * ceil(images / 64),
            batch_size=64,
            rate=1e-4,
            weight_decay=0.1,
            betas=(0.9, 0.999),
            epsilon=1e-8,
            warmup=250,
            final_rate=1.0,
            clip_norm=1.0,
            workers=4,
        ),
        {},
    )


def tiny(images: int) -> tuple[DetectionConfig, TrainConfig, Mapping[str, Any]]:
    """Return what suits a head on tiny and the world: one visit to each of a number of pictures, a quarter as wide."""
    return (
        DetectionConfig(size=256, jitter=(), templates="simple"),
        TrainConfig(
            steps=ceil(images / 8),
            batch_size=8,
            rate=1e-3,
            weight_decay=0.05,
            betas=(0.9, 0.999),
            epsilon=1e-8,
            warmup=50,
            clip_norm=1.0,
            workers=2,
            log_every=25,
            save_every=250,
        ),
        {"channels": 64, "hidden": 64, "proposals": 150, "candidates": 400, "regions": 64},
    )


PRESETS = {"paper": paper, "tiny": tiny}
"""From the number of pictures to what is seen, how it is trained, and changes of the head."""
