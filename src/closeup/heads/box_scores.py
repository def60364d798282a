"""What boxes say of a score map: inside of a box its word is there, and no other unless another box says so."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from closeup._types import Boxes, Labels

CELL = 4
"""Side in pixels of the cells that scores are compared on."""


def box_targets(
    boxes: Boxes, labels: Labels, owners: Labels, *, batch: int, words: int, size: tuple[int, int]
) -> Bool[Tensor, "batch words rows cols"]:
    """Return where each word has a box, on ``size`` (rows, columns) of cells of 4 pixels.

    ``boxes`` are xyxy in pixels, ``owners`` the number of each one's picture. Sides are cut to whole cells toward zero
    and held inside of the map's first and last cell, the end exclusive: so the last row and the last column never are
    inside of a box, as in the official code.
    """
    rows, cols = size
    targets = torch.zeros(batch, words, rows, cols, dtype=torch.bool, device=boxes.device)
    highest = boxes.new_tensor([cols - 1, rows - 1, cols - 1, rows - 1])
    cells = (boxes / CELL).trunc().clamp(min=0).minimum(highest).long()
    for picture, word, (left, top, right, bottom) in zip(owners.tolist(), labels.tolist(), cells.tolist(), strict=True):
        targets[picture, word, top:bottom, left:right] = True
    return targets


def box_score_loss(
    scores: Float[Tensor, "batch words _rows _cols"], targets: Bool[Tensor, "batch words rows cols"]
) -> Float[Tensor, ""]:
    """Return the mean binary cross-entropy of score maps, brought to the targets' size, over cells inside of any box.

    Every word counts at each of those cells, and no other cell does. 0 where no box covers a cell, which is NaN in the
    official code.

    Source: ``raoyongming/DenseCLIP`` ``detection/denseclip/denseclip.py`` (build_seg_target, compute_seg_loss).
    """
    grown = F.interpolate(scores.float(), targets.shape[2:], mode="bilinear", align_corners=False)
    inside = targets.any(dim=1)
    logits, truth = (each.movedim(1, 3)[inside] for each in (grown, targets))
    total = F.binary_cross_entropy_with_logits(logits, truth.float(), reduction="sum")
    return total / max(logits.numel(), 1)
