"""The settings of F-ViT: its parts, its losses, and how its scores meet CLIP's."""

from __future__ import annotations

from dataclasses import dataclass

from closeup.config import Config
from closeup.errors import ConfigError


@dataclass(frozen=True)
class FVitConfig(Config):
    """What an F-ViT is made of; defaults are those of OV-COCO with ViT-B/16.

    Raises:
        ConfigError: a value outside its range.

    Source: ``wusize/CLIPSelf`` ``F-ViT/configs/ov_coco``.
    """

    blocks: tuple[int, ...] = ()
    """The four blocks that the pyramid is made of, 0-based; empty is every quarter of the tower (3, 5, 7, 11 of 12)."""
    route: str = "value"
    """How the last block is replaced to keep features local."""
    channels: int = 256
    """Width of the feature pyramid, and of the proposal head."""
    hidden: int = 256
    """Width of the box head's convolutions; its layers are as wide as CLIP's joint space."""
    bins: int = 7
    """Side of a region's grid."""
    convolutions: int = 4
    """Of the box head."""
    proposals: int = 1000
    """Regions proposed in a picture, at most."""
    candidates: int = 2000
    """Anchors of each level that proposals are chosen from, in training; half of it when detecting."""
    regions: int = 512
    """Regions of a picture that the box head learns from, a quarter of them objects where there are enough."""
    masks: bool = False
    """Whether things are outlined too, by a head that learns from masks; for OV-LVIS."""
    background_weight: float = 0.6
    """Weight of the background in the class loss; 0.9 for OV-LVIS."""
    alpha: float = 0.1
    """CLIP's share in the scores of base classes."""
    beta: float = 0.8
    """CLIP's share in the scores of novel classes; 0.6 for OV-LVIS with ViT-B/16."""
    clip_scale: float = 75.0
    """The factor on CLIP's cosines; 50 for OV-LVIS."""
    overlap: float = 0.4
    """The IoU above which the worse of two boxes of one word goes; 0.5 for OV-LVIS."""

    def __post_init__(self) -> None:
        if self.blocks and len(self.blocks) != 4:
            raise ConfigError(f"`blocks` must name 4 blocks, or none, but got {self.blocks}.")
        for name in ("channels", "hidden", "bins", "proposals", "candidates", "regions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, but got {getattr(self, name)}.")
        for name in ("alpha", "beta", "overlap"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"`{name}` must lie between 0 and 1, but got {getattr(self, name)}.")
        if not self.clip_scale > 0 or not self.background_weight > 0 or self.convolutions < 0:
            raise ConfigError("`clip_scale` and `background_weight` must be positive, `convolutions` not negative.")
