"""Outlines: which part of a region's box is the object, the same for every class or one for each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, grid_sample
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import roi_align

from closeup._types import Labels

BINS = 14
"""Side of a region's grid; outlines have twice as many cells a side."""

Outlines = Float[Tensor, "regions side side"]
"""A grid over each region's box."""


class MaskHead(nn.Module):
    """Four convolutions, one transposed, and the logit of every cell.

    With ``classes`` above 1 each class has outlines of its own. With ``norms`` convolutions are normed over the batch.

    Source: Mask R-CNN (arXiv 1703.06870) as torchvision has it; ``wusize/CLIPSelf`` ``F-ViT/configs/ov_lvis``
    (class-agnostic, with norms).
    """

    def __init__(
        self,
        channels: int,
        *,
        hidden: int | None = None,
        convolutions: int = 4,
        classes: int = 1,
        norms: bool = True,
    ) -> None:
        super().__init__()
        inner, norm = hidden or channels, nn.BatchNorm2d if norms else None
        self.shared = MaskRCNNHeads(channels, [inner] * convolutions, 1, norm_layer=norm)
        self.outline = MaskRCNNPredictor(inner if convolutions else channels, inner, classes)

    def forward(self, regions: Float[Tensor, "regions channels bins bins"], labels: Labels | None = None) -> Outlines:
        """Return the logits of each region's cells, twice as many a side as the grid has.

        ``labels`` are the classes of regions, where outlines are not the same for all of them.
        """
        if not len(regions):  # norms of no region are not finite; the parameters stay part of the graph
            side = 2 * regions.shape[-1]
            return regions.new_zeros(0, side, side) + torch.stack([each.sum() for each in self.parameters()]).sum() * 0
        logits: Tensor = self.outline(self.shared(regions))
        if labels is None:
            return logits[:, 0].float()
        return logits[torch.arange(len(logits), device=logits.device), labels].float()


def mask_loss(
    logits: Outlines,
    boxes: Sequence[Float[Tensor, "_ 4"]],
    masks: Sequence[Bool[Tensor, "_ _ _"]],
    matched: Sequence[Int[Tensor, " _"]],
) -> Float[Tensor, ""]:
    """Return the mean binary cross-entropy of outlines with the true masks cut out; 0 where there is no region.

    Args:
        logits: Of all pictures' regions, in their order.
        boxes: Each picture's regions (xyxy in pixels of the canvas).
        masks: Each picture's true masks on the canvas.
        matched: Which of the true masks each region is of.

    The cut is an aligned RoIAlign, as in mmdet; torchvision's own Mask R-CNN cuts half a pixel off.
    """
    if not len(logits):
        return logits.sum()
    truth = [
        roi_align(mask[:, None].float(), torch.cat([row[:, None].to(box), box], dim=1), logits.shape[1:], aligned=True)
        for box, mask, row in zip(boxes, masks, matched, strict=True)
        if len(box)
    ]
    return binary_cross_entropy_with_logits(logits, torch.cat(truth)[:, 0])


def painted(
    outlines: Outlines, boxes: Float[Tensor, "regions 4"], size: tuple[int, int], *, threshold: float = 0.5
) -> Bool[Tensor, "regions height width"]:
    """Return masks of a picture of ``size`` (height, width) from outlines in probabilities and boxes in its pixels.

    A pixel is part of a thing where the outline, bilinear between the middles of its cells, exceeds ``threshold`` at
    the pixel's middle; nothing is outside of the box.

    Source: mmdet's pasting (``_do_paste_mask``); torchvision's moves boxes to whole pixels and adds one to their sides.
    """
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool, device=outlines.device)
    # One at a time: in floats, those of a large photo take gigabytes.
    for mask, outline, (left, top, right, bottom) in zip(masks, outlines, boxes.tolist(), strict=True):
        columns = _window(left, right, size[1], outlines)
        rows = _window(top, bottom, size[0], outlines)
        if not len(columns) or not len(rows):
            continue
        across = (columns + 0.5 - left) / (right - left) * 2 - 1
        down = (rows + 0.5 - top) / (bottom - top) * 2 - 1
        places = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=2)
        shown = grid_sample(outline[None, None], places[None], align_corners=False)[0, 0] > threshold
        mask[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1] = shown
    return masks


def _window(first: float, last: float, side: int, like: Tensor) -> Float[Tensor, " pixels"]:
    """Return the pixels of a side whose middles lie between two ends."""
    start, end = max(math.ceil(first - 0.5), 0), min(math.ceil(last - 0.5), side)
    return torch.arange(start, max(end, start), device=like.device, dtype=like.dtype)
