"""Detector losses: the official code's on its goldens, and what must not happen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchvision.models.detection._utils import BoxCoder

from closeup.heads.losses import (
    box_loss,
    class_weighted_cross_entropy,
    focal_cross_entropy,
    weighted_cross_entropy,
)
from closeup.match import cosine
from goldens import Golden, assert_close, cases


@pytest.mark.parametrize("golden", cases("regionclip_transfer"))
@pytest.mark.parametrize("kind", ["coco", "lvis"])
def test_classification_is_learned_as_in_the_official_transfer(golden: Golden, kind: str) -> None:
    regions, labels = golden["in/region_feats"].requires_grad_(), golden["in/gt_classes"]
    words = torch.cat([golden["w/cls_score.weight"], golden["w/cls_bg_score.weight"]])
    logits = cosine(regions, words) / golden.config["temp"]
    assert_close(logits.detach(), golden["out/train_logits"])
    weight = golden.config[f"bg_weight_{kind}"]
    if kind == "coco":
        loss = focal_cross_entropy(logits, labels, background_weight=weight, focus=golden.config["focal_gamma"])
    else:
        loss = weighted_cross_entropy(logits, labels, background_weight=weight)
    assert_close(loss.detach(), golden[f"out/loss_cls_{kind}"])
    loss.backward()
    assert regions.grad is not None
    assert_close(regions.grad, golden[f"out/grad_cls_{kind}_region_feats"])


@pytest.mark.parametrize("golden", cases("regionclip_transfer"))
def test_boxes_are_learned_as_in_the_official_transfer(golden: Golden) -> None:
    regions, weight = golden["in/region_feats"].requires_grad_(), golden["w/bbox_pred.weight"].requires_grad_()
    deltas = regions @ weight.T + golden["w/bbox_pred.bias"]
    assert_close(deltas.detach(), golden["out/box_deltas"])
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    targets = coder.encode_single(golden["in/gt_boxes"], golden["in/proposal_boxes"][:, 1:])
    assert_close(targets, golden["out/encode_deltas"])
    objects = (golden["in/gt_classes"] < golden.config["num_classes"]).nonzero()[:, 0]
    loss = box_loss(deltas, targets, objects)
    assert_close(loss.detach(), golden["out/loss_box_reg"])
    loss.backward()
    assert regions.grad is not None
    assert weight.grad is not None
    assert_close(regions.grad, golden["out/grad_box_reg_region_feats"])
    assert_close(weight.grad, golden["out/grad_box_reg_bbox_pred_weight"])


@pytest.mark.parametrize("golden", cases("fvit_fusion"))
def test_novel_classes_do_not_exist_as_in_the_official_f_vit(golden: Golden) -> None:
    logits, labels, weights = golden["in/cls_logits"].requires_grad_(), golden["in/labels"], golden["in/label_weights"]
    classes = torch.tensor(golden.config["class_weight"])
    for row, expected in enumerate(golden["out/loss_none"]):
        one = slice(row, row + 1)
        found = class_weighted_cross_entropy(logits.detach()[one], labels[one], classes, weights[one], count=1)
        assert_close(found, expected, tolerance=1e-4)
    total = golden["out/loss_none"].sum()
    count = float(total / golden["out/loss"])
    loss = class_weighted_cross_entropy(logits, labels, classes, weights, count=count)
    assert_close(loss.detach(), golden["out/loss"])
    loss.backward()
    assert logits.grad is not None
    assert_close(logits.grad, golden["out/loss_grad"])


def table(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_whatever_novel_logits_are_the_loss_is_the_same_and_moves_none_of_them() -> None:
    logits, labels, classes = (
        table(6, 5).requires_grad_(),
        torch.tensor([0, 2, 4, 2, 0, 4]),
        torch.tensor([1.0, 0, 1, 0, 0.6]),
    )
    loss = class_weighted_cross_entropy(logits, labels, classes)
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad[:, classes == 0].any()
    other = logits.detach().clone()
    other[:, classes == 0] += 100 * table(6, 2, 1)
    torch.testing.assert_close(class_weighted_cross_entropy(other, labels, classes), loss.detach())


def test_a_region_with_a_novel_label_teaches_nothing() -> None:
    logits, classes = table(3, 5).requires_grad_(), torch.tensor([1.0, 0, 1, 0, 0.6])
    loss = class_weighted_cross_entropy(logits, torch.tensor([0, 1, 4]), classes, count=1)
    loss.backward()
    alone = class_weighted_cross_entropy(logits.detach()[[0, 2]], torch.tensor([0, 4]), classes, count=1)
    torch.testing.assert_close(loss.detach(), alone)
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
    assert not logits.grad[1].any()


def test_without_focus_and_background_it_is_cross_entropy() -> None:
    logits, labels = table(6, 5), torch.tensor([0, 2, 4, 2, 0, 4])
    torch.testing.assert_close(
        focal_cross_entropy(logits, labels, background_weight=1.0, focus=0.0), cross_entropy(logits, labels)
    )
    torch.testing.assert_close(
        weighted_cross_entropy(logits, labels, background_weight=1.0), cross_entropy(logits, labels)
    )


def test_a_region_learned_by_heart_has_a_finite_slope() -> None:
    logits = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    focal_cross_entropy(logits, torch.tensor([0])).backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


def test_no_region_is_no_loss_and_no_nan() -> None:
    logits, labels = torch.zeros(0, 4, requires_grad=True), torch.zeros(0, dtype=torch.long)
    rows, boxes = torch.zeros(0, dtype=torch.long), torch.zeros(0, 4, requires_grad=True)
    for loss in (
        focal_cross_entropy(logits, labels),
        weighted_cross_entropy(logits, labels),
        class_weighted_cross_entropy(logits, labels, torch.ones(4)),
        box_loss(boxes, boxes.detach(), rows),
        box_loss(torch.ones(3, 4, requires_grad=True), torch.zeros(3, 4), rows),
    ):
        assert loss.item() == 0
        loss.backward()
