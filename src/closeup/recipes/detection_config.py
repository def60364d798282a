"""How a detector's head is trained: on which canvas, in which words, how long and how fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, TypeAlias

from closeup.config import Config
from closeup.errors import ConfigError
from closeup.recipes.config import TrainConfig

Settings: TypeAlias = tuple["SeenConfig", TrainConfig, Mapping[str, Any]]
"""What is seen, how it is trained, and changes of the head."""


@dataclass(frozen=True)
class SeenConfig(Config):
    """What every head's training tells of its pictures and words.

    Raises:
        ConfigError: a value outside its range.
    """

    size: int
    """Side of the canvas in pixels."""
    templates: str
    """The sentences around a word."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"`size` must be a side in pixels, but got {self.size}.")


@dataclass(frozen=True)
class DetectionConfig(SeenConfig):
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
        super().__post_init__()
        if self.jitter and not (len(self.jitter) == 2 and 0 < self.jitter[0] <= self.jitter[1]):
            raise ConfigError(f"`jitter` must be two sizes, the smaller first, or nothing, but got {self.jitter}.")


def paper(images: int) -> Settings:
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


def lvis(images: int) -> Settings:
    """Return F-ViT's training for OV-LVIS with ViT-B/16, and what it changes in the head: outlines, and the scores.

    As for OV-COCO, but 48 epochs of pictures of 1024 px. There the rate falls to a tenth after 32 and after 44 epochs,
    here on a cosine.

    Source: ``wusize/CLIPSelf`` ``F-ViT/configs/ov_lvis``.
    """
    seen, training, _ = paper(images)
    head = {"masks": True, "background_weight": 0.9, "beta": 0.6, "clip_scale": 50.0, "overlap": 0.5}
    return seen.replace(size=1024), replace(training, steps=48 * ceil(images / 64), final_rate=0.0), head


def tiny(images: int) -> Settings:
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


def c4_paper(images: int) -> Settings:
    """Return RegionCLIP's training for OV-COCO, whatever the number of pictures: 90,000 steps of 16, SGD.

    Rate 0.002, momentum 0.9, decay 1e-4, 5000 steps of warm-up; shortest sides of 640 to 800 pixels, which the longest
    side of 1067 is for a picture of 4:3. There the rate falls to a tenth at 60,000 and at 80,000 steps, here on a
    cosine.

    Source: ``microsoft/RegionCLIP`` ``configs/COCO-InstanceSegmentation/CLIP_fast_rcnn_R_50_C4_ovd.yaml``.
    """
    return (
        DetectionConfig(size=1067, jitter=(0.8, 1.0), templates="openai-80"),
        TrainConfig(
            steps=90_000,
            batch_size=16,
            rate=2e-3,
            optimizer="sgd",
            weight_decay=1e-4,
            betas=(0.9, 0.999),
            warmup=5000,
            workers=4,
            save_every=2500,
        ),
        {},
    )


def c4_lvis(images: int) -> Settings:
    """Return RegionCLIP's training for OV-LVIS: twice as long as for OV-COCO, another class loss, raw objectness.

    The official one also repeats pictures of rare base classes, which this one does not.

    Source: ``microsoft/RegionCLIP`` ``configs/LVISv1-InstanceSegmentation/CLIP_fast_rcnn_R_50_C4.yaml``.
    """
    seen, training, _ = c4_paper(images)
    return seen, replace(training, steps=180_000), {"loss": "weighted", "objectness": "logit"}


def c4_tiny(images: int) -> Settings:
    """Return what suits RegionCLIP's detector on tiny and the world: one visit to each of a number of pictures.

    The rate is low, for the tower learns: in 160 steps at 128 px three times the rate took more from what tiny-clipself
    knows of novel words (from 93 % of true boxes to 73 %, and to 80 % at this one). The proposer's objectness takes
    part in scores, as a probability: without it base AP50 was 48 to 55 %, with it 66 to 71 % (1,200 scenes).
    """
    seen, training, head = tiny(images)
    return seen, replace(training, rate=1e-4), {"regions": head["regions"], "objectness": "sigmoid"}


def rpn_tiny(images: int) -> Settings:
    """Return what suits a proposer on tiny and the world: as a detector's."""
    seen, training, head = tiny(images)
    return seen, training, {name: head[name] for name in ("channels", "proposals", "candidates")}


Presets: TypeAlias = Mapping[str, Callable[[int], Settings]]
"""By name, from the number of pictures."""

PRESETS: Presets = {"paper": paper, "paper-lvis": lvis, "tiny": tiny}
"""Of F-ViT."""

RPN_PRESETS: Presets = {"paper": paper, "tiny": rpn_tiny}
"""Of proposers, which are trained as F-ViT's own is."""

C4_PRESETS: Presets = {"paper": c4_paper, "paper-lvis": c4_lvis, "tiny": c4_tiny}
"""Of RegionCLIP's detector."""
