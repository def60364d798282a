"""Class-agnostic region proposals on a feature pyramid: torchvision's network, with two convolutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers

from closeup._types import Images

SCALE = 8
"""Side of an anchor in cells of its level."""

RATIOS = (0.5, 1.0, 2.0)
"""Heights of anchors over their widths."""


class Anchors(AnchorGenerator):  # type: ignore[misc]  # torchvision has no types
    """torchvision's anchors at exact strides; its own are whole numbers that a canvas of whole cells gives.

    ``scales`` are the sides of a cell's anchors in cells of their level.
    """

    def __init__(self, strides: Sequence[float], scales: Sequence[float] = (SCALE,)) -> None:
        sizes = tuple(tuple(float(scale * stride) for scale in scales) for stride in strides)
        super().__init__(sizes, (RATIOS,) * len(strides))
        self._strides = tuple(strides)

    def forward(
        self, images: ImageList, levels: list[Float[Tensor, "batch channels _ _"]]
    ) -> list[Float[Tensor, "anchors 4"]]:
        """Return the same anchors for every picture: those of each level around the corners of its cells."""
        first = levels[0]
        self.set_cell_anchors(first.dtype, first.device)
        steps = [[first.new_tensor(stride)] * 2 for stride in self._strides]
        every = torch.cat(self.grid_anchors([list(level.shape[-2:]) for level in levels], steps))
        return [every] * len(first)


class ProposalHead(RPNHead):  # type: ignore[misc]  # torchvision has no types
    """torchvision's head, whose outputs leave half precision: boxes are decoded from them."""

    def forward(
        self, levels: list[Float[Tensor, "batch channels _ _"]]
    ) -> tuple[list[Float[Tensor, "batch _ _ _"]], list[Float[Tensor, "batch _ _ _"]]]:
        """Return the objectness logits and the box changes of every anchor of every level."""
        logits, deltas = super().forward(levels)
        return [each.float() for each in logits], [each.float() for each in deltas]


def proposal_network(
    channels: int, strides: Sequence[float], *, proposals: int, candidates: int, convolutions: int = 2
) -> RegionProposalNetwork:
    """Return a network that proposes boxes on levels of these strides, in pixels.

    Anchors have the area of ``SCALE`` cells square of their level and three ratios; objects are anchors above an IoU of
    0.7 with a box, background those below 0.3. Its box loss is smooth, where mmdet's is L1.

    Source: ``wusize/CLIPSelf`` ``F-ViT/configs`` (mmdet's RPN); Faster R-CNN (arXiv 1506.01497).
    """
    return RegionProposalNetwork(
        Anchors(strides),
        ProposalHead(channels, len(RATIOS), conv_depth=convolutions),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n={"training": candidates, "testing": max(candidates // 2, 1)},
        post_nms_top_n={"training": proposals, "testing": proposals},
        nms_thresh=0.7,
    )


def listed(images: Images, sizes: Int[Tensor, "batch 2"]) -> ImageList:
    """Return canvases with the height and width of the picture on each, as torchvision wants them."""
    return ImageList(images, [(int(height), int(width)) for height, width in sizes.tolist()])


def scored(
    network: RegionProposalNetwork, images: ImageList, levels: Mapping[str, Tensor]
) -> list[tuple[Float[Tensor, "count 4"], Float[Tensor, " count"]]]:
    """Return the boxes that a network in eval mode proposes in each picture, best first, with their logits.

    torchvision's own call keeps the scores to itself.
    """
    maps = list(levels.values())
    logits, deltas = network.head(maps)
    anchors = network.anchor_generator(images, maps)
    counts = [level[0].numel() for level in logits]
    flat, changes = concat_box_prediction_layers(logits, deltas)
    boxes = network.box_coder.decode(changes, anchors).view(len(anchors), -1, 4)
    kept, shares = network.filter_proposals(boxes, flat, images.image_sizes, counts)
    return [(box, share.logit(eps=1e-6)) for box, share in zip(kept, shares, strict=True)]
