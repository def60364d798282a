"""The proposer: torchvision's boxes with their scores, losses, and boxes that need no names."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from closeup.errors import ConfigError
from closeup.heads.proposals import listed, scored
from closeup.heads.rpn import Rpn, RpnConfig
from tiny_clips import vit_clip
from tiny_towers import randomise

SIDE = 64
SMALL = RpnConfig(channels=16, proposals=30, candidates=100)


def network() -> Rpn:
    made = Rpn(vit_clip(layers=4), SMALL)
    randomise(made, 0)
    return made.eval()


def batch(count: int = 3) -> dict[str, Tensor]:
    boxes = torch.tensor([[4.0, 4, 30, 40], [20, 10, 60, 50], [0, 0, 64, 30]])
    return {
        "images": torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)),
        "sizes": torch.tensor([[SIDE, SIDE], [SIDE, 40]]),
        "boxes": boxes[:count],
        "labels": torch.tensor([0, 7, 3])[:count],
        "owners": torch.tensor([0, 0, 1])[:count],
    }


@torch.no_grad()
def test_boxes_are_torchvisions_and_scores_fall() -> None:
    made, given = network(), batch()
    levels, _ = made.pyramid(given["images"])
    canvases = listed(given["images"], given["sizes"])
    expected, _ = made.network(canvases, levels)
    for proposals, boxes, (height, width) in zip(
        made.propose(given["images"], given["sizes"]), expected, given["sizes"].tolist(), strict=True
    ):
        assert torch.equal(proposals.boxes, boxes)
        assert 0 < len(boxes) <= 30
        assert bool((proposals.logits.diff() <= 1e-6).all())
        assert float(proposals.boxes[:, 2].max()) <= width
        assert float(proposals.boxes[:, 3].max()) <= height
    _, logits = scored(made.network, canvases, levels)[0]
    best = max(float(level[0].max()) for level in made.network.head(list(levels.values()))[0])
    assert float(logits[0]) <= best + 1e-4


def test_losses_reach_every_parameter_and_need_no_names() -> None:
    made = network().train()
    torch.manual_seed(0)
    given = made(batch())
    given["loss"].backward()
    assert {name for name, parameter in made.named_parameters() if parameter.grad is None} == set()
    torch.manual_seed(0)
    other = made({**batch(), "labels": torch.tensor([5, 5, 5])})
    torch.testing.assert_close(other["loss"].detach(), given["loss"].detach(), atol=1e-5, rtol=1e-4)
    assert all(bool(value.isfinite()) for value in made(batch(0)).values()), "a picture without objects"


def test_settings_out_of_range_are_said() -> None:
    with pytest.raises(ConfigError, match="4 blocks"):
        RpnConfig(blocks=(1,))
    with pytest.raises(ConfigError, match="`proposals`"):
        RpnConfig(proposals=0)
