"""The mask head: torchvision's own loss by hand, and masks that come back from their outlines."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.ops import roi_align

from closeup.heads.mask_head import BINS, MaskHead, mask_loss, painted


def test_an_outline_has_twice_the_cells_of_the_grid() -> None:
    torch.manual_seed(0)
    head = MaskHead(8, hidden=6, convolutions=2)
    assert head(torch.randn(3, 8, BINS, BINS)).shape == (3, 28, 28)
    assert head.eval()(torch.zeros(0, 8, BINS, BINS)).shape == (0, 28, 28)
    assert MaskHead(8, convolutions=0)(torch.randn(2, 8, 4, 4)).shape == (2, 8, 8)


def test_the_loss_is_the_cross_entropy_with_the_cut_out_truth() -> None:
    torch.manual_seed(0)
    masks = [torch.rand(2, 32, 40) > 0.5, torch.zeros(0, 32, 40, dtype=torch.bool), torch.rand(1, 32, 40) > 0.5]
    boxes = [
        torch.tensor([[2.0, 3, 20, 30], [5, 1, 39, 12], [0, 0, 8, 8]]),
        torch.zeros(0, 4),
        torch.tensor([[1.0, 2, 9, 30]]),
    ]
    matched = [torch.tensor([1, 0, 1]), torch.zeros(0, dtype=torch.long), torch.tensor([0])]
    logits = torch.randn(4, 28, 28, requires_grad=True)
    truth = torch.cat(
        [
            roi_align(mask[row][None, None].float(), [box[None]], 28, aligned=True)[0]
            for mask, box_of, match in zip(masks, boxes, matched, strict=True)
            for box, row in zip(box_of, match.tolist(), strict=True)
        ]
    )
    loss = mask_loss(logits, boxes, masks, matched)
    torch.testing.assert_close(loss, binary_cross_entropy_with_logits(logits, truth))
    none = mask_loss(logits[:0], [boxes[1]], [masks[1]], [matched[1]])
    assert none == 0
    none.backward()


@pytest.mark.parametrize("size", [(60, 80), (33, 47)])
@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_masks_come_back_from_their_outlines(size: tuple[int, int], shift: float) -> None:
    rows, columns = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    disc = (rows - 16.5) ** 2 + (columns - 22.5) ** 2 <= 12**2
    box = torch.tensor([[22.5 - 12, 16.5 - 12, 22.5 + 12, 16.5 + 12]]) + shift
    outline = roi_align(disc[None, None].float(), [box], 28, aligned=True)[0]
    (mask,) = painted(outline, box, size)
    assert (mask & disc).sum() / (mask | disc).sum() > (0.98 if shift == 0 else 0.93)
    assert painted(torch.zeros(0, 28, 28), torch.zeros(0, 4), size).shape == (0, *size)


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ([4.0, 6, 14, 16], 100),
        ([4.0, 6, 10, 12], 36),
        ([3.6, 5.6, 13.6, 15.6], 100),
        ([-5.0, -4, 5, 6], 30),
        ([35.0, 20, 60, 40], 5 * 10),
        ([50.0, 50, 60, 60], 0),
        ([5.0, 5, 5, 9], 0),
    ],
)
def test_a_full_outline_fills_its_box_and_no_more(box: list[float], pixels: int) -> None:
    (mask,) = painted(torch.ones(1, 28, 28), torch.tensor([box]), (30, 40))
    assert mask.sum() == pixels
