"""The settings of a DenseCLIP that finds things: which of two detectors it is, and what that is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from closeup.errors import ConfigError
from closeup.heads.denseclip_config import DenseClipConfig


@dataclass(frozen=True)
class DenseClipDetectorConfig(DenseClipConfig):
    """What a detector with DenseCLIP's scores is made of; defaults are those of COCO with CLIP's ResNets.

    ``hidden`` are the channels of the mask head; ``dropout`` and ``average`` are of label maps and not used.

    Raises:
        ConfigError: a value outside its range.

    Source: ``raoyongming/DenseCLIP`` ``detection/configs``, ``detection/denseclip``.
    """

    head: Literal["retinanet", "mask-rcnn"] = "retinanet"
    """RetinaNet finds boxes in one step; Mask R-CNN proposes boxes first, then names and outlines them."""
    scores: Literal["cosine", "divided"] = "divided"
    """How scores join the features: as cosines, or divided by the temperature, as in the official detectors."""
    auxiliary: float = 1.0
    """Weight of the loss on the score map itself; 0 for none."""
    candidates: int = 1000
    """Of each level the anchors that detections are chosen from (RetinaNet), or proposals are: twice as many in
    training."""
    proposals: int = 1000
    """Regions proposed in a picture, at most."""
    regions: int = 512
    """Regions of a picture that the box head learns from, a quarter of them objects where there are enough."""
    layers: int = 1024
    """Width of the box head's two layers."""
    overlap: float = 0.5
    """The IoU above which the worse of two boxes of one word goes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("candidates", "proposals", "regions", "layers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, but got {getattr(self, name)}.")
        if not 0 <= self.overlap <= 1:
            raise ConfigError(f"`overlap` must lie between 0 and 1, but got {self.overlap}.")
