"""The settings of MaskFormer as OVSeg has it: its parts, and the weights of its losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from closeup.config import Config
from closeup.errors import ConfigError

GROUPS = 32
"""Of the group norms in transformers' pixel decoder."""


@dataclass(frozen=True)
class MaskFormerConfig(Config):
    """What a mask proposer is made of; defaults are OVSeg's.

    Raises:
        ConfigError: a value outside its range.

    Source: ``facebookresearch/ov-seg`` ``configs/ovseg_swinB_vitL_bs32_120k.yaml``.
    """

    blocks: tuple[int, ...] = ()
    """The four blocks of the CLIP that the pyramid is made of, 0-based; empty is every quarter of the tower."""
    route: str = "value"
    """How the last block is replaced to keep features local."""
    queries: int = 100
    """Masks of a picture."""
    channels: int = 256
    """Width of the pyramid, and of the map that masks are read off."""
    hidden: int = 256
    """Width of the queries."""
    heads: int = 8
    layers: int = 6
    feed_forward: int = 2048
    dropout: float = 0.1
    words_hidden: int = 1024
    """Width of the layer between a query and its embedding among words."""
    temperature: float = 0.01
    """What cosines with words are divided by."""
    class_weight: float = 1.0
    mask_weight: float = 20.0
    dice_weight: float = 1.0
    """Of the three losses, and of the three costs that masks are matched by."""
    regions: Literal["words", "things"] = "words"
    """What one true mask is: all that a word names in a picture, as OVSeg has it, or each thing by itself."""
    nothing_weight: float = 0.1
    """Of queries that match nothing, in the class loss."""

    def __post_init__(self) -> None:
        if self.blocks and len(self.blocks) != 4:
            raise ConfigError(f"`blocks` must name 4 blocks, or none, but got {self.blocks}.")
        for name in ("queries", "channels", "hidden", "heads", "layers", "feed_forward", "words_hidden"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, but got {getattr(self, name)}.")
        if self.channels % GROUPS:
            raise ConfigError(f"`channels` ({self.channels}) must be a multiple of {GROUPS}, the groups of its norms.")
        if self.hidden % self.heads or self.hidden % 2:
            raise ConfigError(f"`hidden` ({self.hidden}) must be even, and a multiple of `heads` ({self.heads}).")
        if not 0 <= self.dropout < 1 or not self.temperature > 0 or not self.nothing_weight > 0:
            raise ConfigError("`dropout` must lie from 0 to below 1, `temperature` and `nothing_weight` be positive.")
        weights = (self.class_weight, self.mask_weight, self.dice_weight)
        if min(weights) < 0 or max(weights) == 0:
            raise ConfigError(f"The weights of losses must not be negative, nor all zero, but got {weights}.")
