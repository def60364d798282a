"""The settings of CAT-Seg: its aggregator, where it looks in the CLIP, and what of the CLIP learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from closeup.errors import ConfigError
from closeup.heads.cost_aggregator import AggregatorConfig

Tune: TypeAlias = Literal["both", "image", "nothing"]
"""Whose queries and values learn: those of both towers, of the image tower, or none."""


@dataclass(frozen=True)
class CatSegConfig(AggregatorConfig):
    """What a CAT-Seg is made of; defaults are those with ViT-B/16.

    Raises:
        ConfigError: a value outside its range.

    Source: ``KU-CVLAB/CAT-Seg`` ``configs/vitb_384.yaml``.
    """

    blocks: tuple[int, ...] = ()
    """The two blocks whose maps guide the decoder, 0-based; empty is a third and two thirds of the tower (3 and 7 of
    12)."""
    route: str = "value-cls-residual"
    """How the last block is replaced; "value" for a CLIP that CLIPSelf adapted."""
    guides: tuple[int, int] = (256, 128)
    """Channels of the two guiding maps, at twice and four times the dense map's rows and columns."""
    tune: Tune = "both"
    clip_pace: float = 0.01
    """What the learning rate is multiplied by for the CLIP."""
    pool: int = 2
    """Side of the places that words are compared over in training; 1 afterwards."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blocks and len(self.blocks) != 2:
            raise ConfigError(f"`blocks` must name 2 blocks, or none, but got {self.blocks}.")
        if min(self.guides) < 1 or self.pool < 1 or self.prompts != 1:
            raise ConfigError(
                f"`guides` {self.guides} and `pool` {self.pool} must be at least 1, and `prompts` {self.prompts} be 1: "
                "the sentences around a word are averaged."
            )
        if not self.clip_pace > 0:
            raise ConfigError(f"`clip_pace` must be positive, but got {self.clip_pace}. Or tune nothing.")
