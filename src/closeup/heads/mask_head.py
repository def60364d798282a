"""F-ViT's outlines: which part of a region's box is the object, the same for every class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import maskrcnn_loss, paste_masks_in_image

BINS = 14
"""Side of a region's grid; outlines have twice as many cells a side."""

Outlines = Float[Tensor, "regions side side"]
"""A grid over each region's box."""


class MaskHead(nn.Module):
    """Four convolutions, one transposed, and the logit of every cell.

    Source: Mask R-CNN (arXiv 1703.06870) as torchvision has it; ``wusize/CLIPSelf`` ``F-ViT/configs/ov_lvis``
    (class-agnostic, normed over the batch).
    """

    def __init__(self, channels: int, *, hidden: int | None = None, convolutions: int = 4) -> None:
        super().__init__()
        inner = hidden or channels
        self.shared = MaskRCNNHeads(channels, [inner] * convolutions, 1, norm_layer=nn.BatchNorm2d)
        self.outline = MaskRCNNPredictor(inner if convolutions else channels, inner, 1)

    def forward(self, regions: Float[Tensor, "regions channels bins bins"]) -> Outlines:
        """Return the logits of each region's cells, twice as many a side as the grid has."""
        if not len(regions):  # norms of no region are not finite; the parameters stay part of the graph
            side = 2 * regions.shape[-1]
            return regions.new_zeros(0, side, side) + torch.stack([each.sum() for each in self.parameters()]).sum() * 0
        logits: Tensor = self.outline(self.shared(regions))
        return logits[:, 0].float()


def mask_loss(
    logits: Outlines,
    boxes: Sequence[Float[Tensor, "_ 4"]],
    masks: Sequence[Bool[Tensor, "_ _ _"]],
    matched: Sequence[Int[Tensor, " _"]],
) -> Float[Tensor, ""]:
    """Return the mean binary cross-entropy of regions' outlines; 0 where there is no region.

    Args:
        logits: Of all pictures' regions, in their order.
        boxes: Each picture's regions (xyxy in pixels of the canvas).
        masks: Each picture's true masks on the canvas.
        matched: Which of the true masks each region is of.

    Source: torchvision's Mask R-CNN, which cuts the true mask by RoIAlign.
    """
    classes = [torch.zeros(len(each), dtype=torch.long, device=logits.device) for each in masks]
    loss: Tensor = maskrcnn_loss(logits[:, None], list(boxes), list(masks), classes, list(matched))
    return loss


def painted(
    outlines: Outlines, boxes: Float[Tensor, "regions 4"], size: tuple[int, int], *, threshold: float = 0.5
) -> Bool[Tensor, "regions height width"]:
    """Return masks of a picture of ``size`` (height, width) from outlines in probabilities and boxes in its pixels."""
    if not len(boxes):
        return torch.zeros(0, *size, dtype=torch.bool, device=outlines.device)
    # One at a time: in floats, those of a large photo take gigabytes.
    planes = [
        paste_masks_in_image(outline[None, None], box[None], size)[0, 0] > threshold
        for outline, box in zip(outlines, boxes, strict=True)
    ]
    return torch.stack(planes)
