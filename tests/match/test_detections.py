"""Detections from boxes and scores: the official code's on its goldens, and box by box."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou

from closeup.errors import InputError
from closeup.geometry import clip_boxes
from closeup.match import cosine
from closeup.match.detections import Suppression, select, soften, with_objectness
from goldens import Golden, assert_close, cases


@pytest.mark.parametrize("golden", cases("regionclip_transfer"))
@pytest.mark.parametrize("case", ["", "no_box_delta/", "no_multiply/"])
def test_detections_are_the_official_ones(golden: Golden, case: str) -> None:
    config = golden.config
    words = torch.cat([golden["w/test_cls_score.weight"], golden["w/cls_bg_score.weight"]])
    probabilities = (cosine(golden["in/region_feats"], words) / config["temp"]).softmax(dim=1)
    assert_close(probabilities, golden["out/test_probs"])
    scores = with_objectness(probabilities, golden["in/objectness_logits"], "logit")
    assert_close(scores, golden["out/test_scores"])
    if case == "no_multiply/":
        scores = probabilities
    images, proposals = golden["in/proposal_boxes"][:, 0].long(), golden["in/proposal_boxes"][:, 1:]
    boxes = proposals
    if case != "no_box_delta/":
        deltas = golden["in/region_feats"] @ golden["w/bbox_pred.weight"].T + golden["w/bbox_pred.bias"]
        boxes = BoxCoder((10.0, 10.0, 5.0, 5.0)).decode_single(deltas, proposals)
    assert_close(boxes, golden[f"out/{case}pred_boxes_unclipped"])
    for image in range(len(config["images"])):
        rows, theirs = (images == image).nonzero()[:, 0], golden[f"out/{case}det_image"] == image
        within = clip_boxes(boxes[rows], *config["image_size"])
        found = select(
            within,
            scores[rows, :-1],
            threshold=config["score_thresh"],
            limit=config["topk"],
            suppression=Suppression(config["nms"]),
        )
        assert found.labels.tolist() == golden[f"out/{case}det_classes"][theirs].tolist()
        assert_close(found.scores, golden[f"out/{case}det_scores"][theirs])
        assert_close(within[found.rows], golden[f"out/{case}det_boxes"][theirs])
        usable = scores[rows].isfinite().all(dim=1).nonzero()[:, 0]
        assert torch.equal(found.rows, usable[golden[f"out/{case}det_kept_roi"][theirs]])


@pytest.mark.parametrize("golden", cases("regionclip_transfer"))
def test_torchvision_decodes_boxes_as_the_official_code_does(golden: Golden) -> None:
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    assert_close(
        coder.decode_single(golden["in/decode_deltas"], golden["in/proposal_boxes"][:, 1:]), golden["out/decode_boxes"]
    )


def scene(count: int, words: int, seed: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    corners = 60 * torch.rand(count, 2, generator=draw)
    boxes = torch.cat([corners, corners + 10 + 40 * torch.rand(count, 2, generator=draw)], dim=1)
    return boxes, torch.rand(count, words, generator=draw)


@pytest.mark.parametrize("seed", range(3))
def test_hard_suppression_is_that_of_a_loop(seed: int) -> None:
    boxes, scores = scene(30, 4, seed)
    found = select(boxes, scores, threshold=0.2, limit=1000, suppression=Suppression(0.4))
    expected = []
    overlaps = box_iou(boxes, boxes)
    for word in range(4):
        kept: list[int] = []
        for row in scores[:, word].argsort(descending=True).tolist():
            if scores[row, word] > 0.2 and all(overlaps[row, other] <= 0.4 for other in kept):
                kept.append(row)
        expected += [(float(scores[row, word]), row, word) for row in kept]
    expected.sort(reverse=True)
    assert list(zip(found.rows.tolist(), found.labels.tolist(), strict=True)) == [each[1:] for each in expected]
    best = select(boxes, scores, threshold=0.2, limit=5, suppression=Suppression(0.4))
    assert best.rows.tolist() == found.rows[:5].tolist()


@pytest.mark.parametrize("seed", range(3))
def test_soft_suppression_is_that_of_a_loop(seed: int) -> None:
    boxes, table = scene(25, 3, seed)
    rows, labels = (table > 0.3).nonzero(as_tuple=True)
    scores, sigma, floor = table[rows, labels], 0.5, 0.05
    expected = torch.zeros(len(scores))
    overlaps = box_iou(boxes[rows], boxes[rows])
    for word in range(3):
        left = {int(place): float(scores[place]) for place in (labels == word).nonzero()[:, 0]}
        while left:
            best = max(left, key=lambda place: left[place])
            if left[best] < floor:
                break
            expected[best] = left.pop(best)
            for place in left:
                left[place] *= math.exp(-(float(overlaps[best, place]) ** 2) / sigma)
    torch.testing.assert_close(soften(boxes[rows], scores, labels, sigma, floor), expected, atol=1e-5, rtol=0)
    found = select(
        boxes, table, threshold=0.3, limit=1000, suppression=Suppression(soft=True, sigma=sigma, floor=floor)
    )
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


@pytest.mark.parametrize("soft", [False, True])
def test_the_order_of_regions_and_words_changes_nothing(soft: bool) -> None:
    boxes, scores = scene(20, 5, 7)
    rows, words = torch.randperm(20), torch.randperm(5)
    suppression = Suppression(soft=soft)
    one = select(boxes, scores, threshold=0.3, limit=30, suppression=suppression)
    other = select(boxes[rows], scores[rows][:, words], threshold=0.3, limit=30, suppression=suppression)
    assert torch.equal(one.rows, rows[other.rows])
    assert torch.equal(one.labels, words[other.labels])


@pytest.mark.parametrize("soft", [False, True])
def test_what_is_not_finite_is_left_out_and_nothing_is_an_answer(soft: bool) -> None:
    boxes, scores = scene(4, 3, 0)
    boxes[1, 2], scores[2, 0] = math.nan, math.inf
    found = select(boxes, scores, threshold=0.0, limit=100, suppression=Suppression(soft=soft))
    assert set(found.rows.tolist()) == {0, 3}
    empty = select(boxes[:0], scores[:0], threshold=0.0, limit=100, suppression=Suppression(soft=soft))
    assert len(empty.rows) == 0
    assert len(select(boxes, scores, threshold=2.0, limit=9, suppression=Suppression(soft=soft)).rows) == 0


def test_objectness_as_a_probability_keeps_scores_below_one() -> None:
    _, probabilities = scene(6, 3, 0)
    logits = torch.tensor([-9.0, -1.0, 0.0, 1.0, 4.0, 20.0])
    sane = with_objectness(probabilities, logits)
    assert bool(((sane >= 0) & (sane <= 1)).all())
    assert bool(with_objectness(probabilities, logits, "logit")[:2].isnan().all())


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match=r"overlap 1\.5"):
        Suppression(1.5)
    with pytest.raises(InputError, match="sigma 0"):
        Suppression(sigma=0)
