"""DenseCLIP for things: scores of words at every place guide a detector that learns with its backbone.

    levels, z, Z = tower(picture)
    score        = cos(Z, words) / 0.07                       at each cell of the dense map
    found        = detector(levels, score beside one of them)
    loss         = losses of the detector + BCE(score, inside of boxes)

Source: Rao et al., DenseCLIP, CVPR 2022 (arXiv 2112.01518); ``raoyongming/DenseCLIP``
``detection/denseclip/denseclip.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from closeup._types import Images, Labels
from closeup.heads.box_scores import CELL, box_score_loss, box_targets
from closeup.heads.denseclip import joined_widths, read_with_scores
from closeup.heads.denseclip_detection_config import DenseClipDetectorConfig
from closeup.heads.mask_rcnn import MaskRcnn
from closeup.heads.prompting import Prompting
from closeup.heads.proposals import listed
from closeup.heads.pyramid import VitPyramid
from closeup.heads.regions import Sizes
from closeup.heads.retinanet import RetinaNet
from closeup.heads.tower_backbone import TowerBackbone
from closeup.match.detections import Detections, Suppression

DETECTORS: Mapping[str, type[RetinaNet] | type[MaskRcnn]] = {"retinanet": RetinaNet, "mask-rcnn": MaskRcnn}
"""The detectors by name."""


class DenseClipDetector(nn.Module):
    """A detector of ``words`` words on a backbone; ``prompting`` is None for a plain one without language."""

    kind: ClassVar[str] = "denseclip-detector"

    def __init__(
        self,
        backbone: TowerBackbone,
        prompting: Prompting | None,
        words: int,
        config: DenseClipDetectorConfig | None = None,
    ) -> None:
        super().__init__()
        self.config = config = config or DenseClipDetectorConfig()
        self.backbone, self.prompting, self.words = backbone, prompting, words
        made = DETECTORS[config.head]
        widths = joined_widths(backbone, 0 if prompting is None else words)
        self.detector = made(widths[made.skips :], backbone.strides[made.skips :], words, config)
        if made.skips and isinstance(backbone.spread, VitPyramid):
            backbone.spread.drop_finest()

    @property
    def outlines(self) -> bool:
        """Whether it outlines things, and learns from masks."""
        return self.detector.outlines

    @property
    def route(self) -> str:
        """How the last block is replaced in the dense map."""
        return self.config.route

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return ``loss`` and its parts; the batch is as ``FVit.forward`` has it."""
        images = batch["images"]
        levels, scores = read_with_scores(images, self.backbone, self.prompting, self.config)
        losses = self.detector.losses(levels[self.detector.skips :], listed(images, batch["sizes"]), batch)
        loss = torch.stack(list(losses.values())).sum()
        if scores is not None and self.config.auxiliary:
            losses["scores"] = self._score_loss(scores, batch)
            loss = loss + self.config.auxiliary * losses["scores"]
        return {"loss": loss, **losses}

    @torch.no_grad()
    def detect(
        self,
        images: Images,
        sizes: Sizes,
        places: Labels | None = None,
        *,
        threshold: float = 0.05,
        limit: int = 100,
        suppression: Suppression | None = None,
    ) -> list[Detections]:
        """Return what is found in each picture, boxes in pixels of the canvas; call in eval mode.

        ``places`` are the words that are looked for, all of them unless given; labels count within them.
        """
        wanted = torch.arange(self.words, device=images.device) if places is None else places.to(images.device)
        levels, _ = read_with_scores(images, self.backbone, self.prompting, self.config)
        return self.detector.detect(
            levels[self.detector.skips :],
            listed(images, sizes),
            wanted,
            threshold=threshold,
            limit=limit,
            suppression=suppression,
        )

    def _score_loss(
        self, scores: Float[Tensor, "batch words rows cols"], batch: Mapping[str, Tensor]
    ) -> Float[Tensor, ""]:
        cell = self.backbone.strides[self.backbone.score_level]
        rows, cols = (round(side * cell / CELL) for side in scores.shape[2:])
        targets = box_targets(
            batch["boxes"],
            batch["labels"],
            batch["owners"],
            batch=len(scores),
            words=self.words,
            size=(rows, cols),
        )
        return box_score_loss(scores / self.config.temperature, targets)
