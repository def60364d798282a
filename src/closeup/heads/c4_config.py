"""The settings of RegionCLIP's detector: what learns, its losses, and how a proposal's objectness takes part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from closeup.config import Config
from closeup.errors import ConfigError
from closeup.heads.losses import FOCUS

BACKGROUND_WEIGHTS = {"focal": 0.2, "weighted": 0.8}
"""Of each class loss, as the official configurations for COCO and for LVIS have it."""


@dataclass(frozen=True)
class C4Config(Config):
    """What RegionCLIP's detector is made of; defaults are those of OV-COCO.

    Raises:
        ConfigError: a value outside its range.

    Source: ``microsoft/RegionCLIP`` ``configs/COCO-InstanceSegmentation/CLIP_fast_rcnn_R_50_C4_ovd.yaml``.
    """

    blocks: int | None = None
    """Blocks at the end of the tower that learn; None: all, and of CLIP's ResNets the last three stages."""
    route: str = "value"
    """How the last block is replaced to keep features local; CLIP's ResNets have no use for it."""
    regions: int = 512
    """Regions of a picture that are learned from, a quarter of them objects where there are enough."""
    temperature: float = 0.01
    """What cosines are divided by."""
    loss: Literal["focal", "weighted"] = "focal"
    """The class loss: ``focal`` for COCO, ``weighted`` for LVIS."""
    background_weight: float | None = None
    """Weight of the background in the class loss; None: 0.2 for ``focal``, 0.8 for ``weighted``."""
    focus: float = FOCUS
    """The power of ``1 - p`` in the loss ``focal``."""
    objectness: Literal["none", "sigmoid", "logit"] = "none"
    """How the proposer's logit takes part in a score: ``none`` for COCO, the raw ``logit`` for LVIS."""

    def __post_init__(self) -> None:
        if self.blocks is not None and self.blocks < 1:
            raise ConfigError(f"`blocks` must be at least 1, or None for the usual ones, but got {self.blocks}.")
        if self.regions < 1:
            raise ConfigError(f"`regions` must be at least 1, but got {self.regions}.")
        if not self.temperature > 0 or not self.background > 0 or not self.focus >= 0:
            raise ConfigError(
                f"`temperature` ({self.temperature}) and `background_weight` ({self.background}) must be positive, "
                f"`focus` ({self.focus}) not negative."
            )

    @property
    def background(self) -> float:
        """Weight of the background in the class loss."""
        return BACKGROUND_WEIGHTS[self.loss] if self.background_weight is None else self.background_weight
