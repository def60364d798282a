"""The settings of OVSeg's mask adaptation, and the paper's."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal, TypeAlias

from closeup.config import Config
from closeup.errors import ConfigError
from closeup.models.mask_prompt import DEPTH
from closeup.recipes.config import TrainConfig

Tune: TypeAlias = Literal["tower", "prompts", "both"]
"""What learns: the image tower, mask prompts alone, or both at once. The paper's best does the one after the other."""


@dataclass(frozen=True)
class MaskAdaptConfig(Config):
    """What learns from masks and their nouns, and how their crops are drawn. Defaults are the paper's.

    Raises:
        ConfigError: a value outside its range.

    Source: Liang et al., OVSeg (arXiv 2210.04150), Section 4.1; ``facebookresearch/ov-seg`` ``open_clip_training``.
    """

    tune: Tune = "tower"
    """What learns, besides the factor on cosines."""
    depth: int = DEPTH
    """Places where prompts enter, the first before the first block."""
    shared: bool = False
    """Whether all patches of a place share one prompt."""
    masks_per_picture: int = 1
    """Masks of a picture in one step, drawn at random where it has more."""
    templates: str = "simple"
    """The sentence around a noun."""
    least_area: float = 0.9
    """The least share of a crop that is seen; what is seen is stretched to the crop's size again."""
    equal_nouns: Literal["apart", "negatives"] = "apart"
    """Whether crops of one noun in a batch are left out of each other's loss, or are negatives of each other, as in the
    official code."""

    def __post_init__(self) -> None:
        if self.depth < 1 or self.masks_per_picture < 1:
            raise ConfigError(
                f"`depth` and `masks_per_picture` must be at least 1, but got {self.depth}, {self.masks_per_picture}."
            )
        if not 0 < self.least_area <= 1:
            raise ConfigError(f"`least_area` must lie above 0 and not above 1, but got {self.least_area}.")


def paper(images: int) -> tuple[MaskAdaptConfig, TrainConfig]:
    """Return the paper's fine-tuning of the image tower: 5 epochs of batches of 256, AdamW at 5e-6, decay 0.2.

    That is for ViT-L/14; for ViT-B/16 batches have 1024 crops. Its pictures are pairs (``closeup pairs``); of a data
    set with many masks a picture, one is drawn at each visit.
    """
    return MaskAdaptConfig(), _training(images, rate=5e-6, weight_decay=0.2)


def paper_prompts(images: int) -> tuple[MaskAdaptConfig, TrainConfig]:
    """Return the paper's tuning of prompts: the same at a rate of 2e-2 (the released scripts have 5e-2), no decay."""
    return MaskAdaptConfig(tune="prompts"), _training(images, rate=2e-2, weight_decay=0.0)


def tiny(images: int) -> tuple[MaskAdaptConfig, TrainConfig]:
    """Return what suits the tower of tiny on the world: one visit to each picture, up to eight of its masks."""
    return MaskAdaptConfig(masks_per_picture=8), _tiny(images, rate=3e-4)


def tiny_prompts(images: int) -> tuple[MaskAdaptConfig, TrainConfig]:
    """Return what suits the prompts of tiny on the world."""
    return MaskAdaptConfig(tune="prompts", masks_per_picture=8), _tiny(images, rate=2e-2)


def _training(images: int, *, rate: float, weight_decay: float) -> TrainConfig:
    return TrainConfig(
        steps=5 * ceil(images / 256), batch_size=256, rate=rate, weight_decay=weight_decay, warmup=100, workers=4
    )


def _tiny(images: int, *, rate: float) -> TrainConfig:
    return TrainConfig(
        steps=ceil(images / 16), batch_size=16, rate=rate, weight_decay=0.0, warmup=50, workers=2, log_every=25
    )
