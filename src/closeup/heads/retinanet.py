"""RetinaNet on the maps of a backbone: torchvision's, with anchors at exact strides."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet as TorchRetinaNet
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from closeup._types import Labels
from closeup.heads.denseclip_detection_config import DenseClipDetectorConfig
from closeup.heads.proposals import RATIOS, Anchors
from closeup.heads.regions import picked
from closeup.match.detections import Detections, Suppression
from closeup.models.region_features import per_picture

SCALES = tuple(4 * 2 ** (step / 3) for step in range(3))
"""Sides of anchors in cells of their level."""


class RetinaNet(nn.Module):
    """Boxes and words from every cell of five levels, two of them made by convolutions of the last map.

    ``widths`` and ``strides`` are those of the backbone's three last maps; it has no use for the finest one
    (``skips``). Objects are anchors above an IoU of 0.5 with a box, background those below 0.4.

    Source: Lin et al., Focal Loss for Dense Object Detection (arXiv 1708.02002), as torchvision has it: its losses are
    means over pictures of each one's sum over its objects, where mmdet divides by the objects of all; before the last
    level it has a ReLU, and its anchors have whole pixels.
    """

    skips = 1
    outlines = False

    def __init__(
        self, widths: Sequence[int], strides: Sequence[float], words: int, config: DenseClipDetectorConfig
    ) -> None:
        super().__init__()
        self.candidates, self.overlap = config.candidates, config.overlap
        further = LastLevelP6P7(widths[-1], config.channels)
        further.use_P5 = False  # of the backbone's map, whatever its width
        neck = FeaturePyramidNetwork(list(widths), config.channels, extra_blocks=further)
        neck.out_channels = config.channels
        anchors = Anchors([*strides, 2 * strides[-1], 4 * strides[-1]], SCALES)
        head = RetinaNetHead(config.channels, len(SCALES) * len(RATIOS), words)
        # Its own forward would scale and norm pictures; of it neck, head, anchors and what they learn from are used.
        self.network = TorchRetinaNet(neck, words, anchor_generator=anchors, head=head)

    def losses(
        self, maps: Sequence[Float[Tensor, "batch _ _ _"]], images: ImageList, batch: Mapping[str, Tensor]
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the focal loss of classes and the L1 loss of boxes; the batch is ``FVit.forward``'s."""
        counts = per_picture(batch["owners"], len(images.image_sizes))
        parts = zip(batch["boxes"].split(counts), batch["labels"].split(counts), strict=True)
        targets = [{"boxes": boxes, "labels": labels} for boxes, labels in parts]
        logits, deltas, anchors, _ = self._read(maps, images)
        with torch.autocast(logits.device.type, enabled=False):
            found = self.network.compute_loss(targets, {"cls_logits": logits, "bbox_regression": deltas}, anchors)
        return {"classes": found["classification"], "boxes": found["bbox_regression"]}

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
        logits, deltas, anchors, counts = self._read(maps, images)
        scores = logits[:, :, places].sigmoid()
        boxes, kept = [], []
        for score, delta, anchor in zip(scores, deltas, anchors, strict=True):
            rows = self._best(score.amax(dim=1), counts)
            boxes.append(self.network.box_coder.decode_single(delta[rows], anchor[rows]))
            kept.append(score[rows])
        return picked(
            boxes,
            kept,
            torch.tensor(images.image_sizes),
            threshold=threshold,
            limit=limit,
            suppression=suppression or Suppression(overlap=self.overlap),
        )

    def _best(self, scores: Float[Tensor, " anchors"], counts: Sequence[int]) -> Labels:
        """Return the best anchors of each level."""
        rows, start = [], 0
        for part in scores.split(list(counts)):
            rows.append(start + part.topk(min(self.candidates, len(part))).indices)
            start += len(part)
        return torch.cat(rows)

    def _read(
        self, maps: Sequence[Float[Tensor, "batch _ _ _"]], images: ImageList
    ) -> tuple[
        Float[Tensor, "batch anchors words"],
        Float[Tensor, "batch anchors 4"],
        list[Float[Tensor, "anchors 4"]],
        list[int],
    ]:
        """Return logits and changes of all anchors, the anchors of each picture, and how many a level has."""
        levels = list(self.network.backbone(OrderedDict(zip("345", maps, strict=True))).values())
        found = self.network.head(levels)
        anchors = self.network.anchor_generator(images, [level.float() for level in levels])
        counts = [level.shape[2] * level.shape[3] * len(SCALES) * len(RATIOS) for level in levels]
        return found["cls_logits"].float(), found["bbox_regression"].float(), anchors, counts
