"""Mask R-CNN on the maps of a backbone, from torchvision's parts; regions are read at exact strides."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from closeup._types import Labels
from closeup.heads.backbone import Levels
from closeup.heads.denseclip_detection_config import DenseClipDetectorConfig
from closeup.heads.losses import box_loss
from closeup.heads.mask_head import BINS, MaskHead, mask_loss
from closeup.heads.proposals import proposal_network
from closeup.heads.region_pooling import PyramidPooling
from closeup.heads.regions import Drawn, as_targets, draw, objects_of, picked, region_sampler
from closeup.match.detections import Detections, Suppression

BOX_BINS = 7
"""Side of a region's grid for the box head."""


class MaskRcnn(nn.Module):
    """Boxes are proposed; of each a class, a move for each class, and an outline for each class are told.

    ``widths`` and ``strides`` are those of the backbone's four maps; the fifth level is every second cell of the last.

    Source: He et al., Mask R-CNN (arXiv 1703.06870) as in mmdet: boxes have an L1 loss, and grids are aligned.
    """

    skips = 0
    outlines = True

    def __init__(
        self, widths: Sequence[int], strides: Sequence[float], words: int, config: DenseClipDetectorConfig
    ) -> None:
        super().__init__()
        channels, self.words, self.overlap = config.channels, words, config.overlap
        self.neck = FeaturePyramidNetwork(list(widths), channels, extra_blocks=LastLevelMaxPool())
        self.proposals = proposal_network(
            channels,
            [*strides, 2 * strides[-1]],
            proposals=config.proposals,
            candidates=2 * config.candidates,
            convolutions=1,
        )
        self.sampler = region_sampler(config.regions)
        self.pooling = PyramidPooling(strides, BOX_BINS)
        self.shared = TwoMLPHead(channels * BOX_BINS**2, config.layers)
        self.named = FastRCNNPredictor(config.layers, words + 1)
        self.mask_pooling = PyramidPooling(strides, BINS)
        self.mask_head = MaskHead(channels, hidden=config.hidden, classes=words, norms=False)

    def losses(
        self, maps: Sequence[Float[Tensor, "batch _ _ _"]], images: ImageList, batch: Mapping[str, Tensor]
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the losses of proposals, classes, boxes and outlines; the batch is ``FVit.forward``'s, with masks."""
        levels, targets = self._levels(maps), as_targets(batch)
        proposed, given = self.proposals(images, levels, targets)
        drawn = draw(self.sampler, proposed, targets, background=self.words)
        logits, moves = self._read(levels, drawn.boxes)
        moved = moves[torch.arange(len(moves), device=moves.device), drawn.classes]
        return {
            "objectness": given["loss_objectness"],
            "proposal_boxes": given["loss_rpn_box_reg"],
            "classes": F.cross_entropy(logits, drawn.classes),
            "boxes": box_loss(moved, drawn.deltas, drawn.objects),
            "masks": self._mask_loss(levels, drawn, batch),
        }

    def detect(
        self,
        maps: Sequence[Float[Tensor, "batch _ _ _"]],
        images: ImageList,
        places: Labels,
        *,
        threshold: float,
        limit: int,
        suppression: Suppression | None,
    ) -> list[Detections]:
        """Return what is found in each picture of the words at ``places``, boxes in pixels of the canvas."""
        levels = self._levels(maps)
        proposed, _ = self.proposals(images, levels)
        logits, moves = self._read(levels, proposed)
        boxes = self.sampler.box_coder.decode(moves.flatten(1), list(proposed))
        counts = [len(each) for each in proposed]
        found = picked(
            boxes.view(len(moves), self.words + 1, 4)[:, places].split(counts),
            logits.softmax(dim=1)[:, places].split(counts),
            torch.tensor(images.image_sizes),
            threshold=threshold,
            limit=limit,
            suppression=suppression or Suppression(overlap=self.overlap),
        )
        regions = self.mask_pooling(levels, [each.boxes for each in found])
        shapes = self.mask_head(regions, places[torch.cat([each.labels for each in found])]).sigmoid()
        parts = shapes.split([len(each) for each in found])
        return [replace(each, outlines=part) for each, part in zip(found, parts, strict=True)]

    def _mask_loss(self, levels: Levels, drawn: Drawn, batch: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        boxes, masks, matched = objects_of(drawn, batch)
        logits = self.mask_head(self.mask_pooling(levels, boxes), drawn.classes[drawn.objects])
        return mask_loss(logits, boxes, masks, matched)

    def _levels(self, maps: Sequence[Float[Tensor, "batch _ _ _"]]) -> Levels:
        levels = self.neck(OrderedDict(zip("2345", maps, strict=True)))
        return OrderedDict((name, level.float()) for name, level in levels.items())

    def _read(
        self, levels: Levels, boxes: Sequence[Float[Tensor, "_ 4"]]
    ) -> tuple[Float[Tensor, "regions classes"], Float[Tensor, "regions classes 4"]]:
        """Return of each region the logits of words and the background, and the moves of its box for each."""
        logits, moves = self.named(self.shared(self.pooling(levels, boxes)))
        return logits.float(), moves.float().view(len(logits), -1, 4)
