from __future__ import annotations

import pytest
import torch

from closeup.errors import InputError
from closeup.match.cosine import cosine
from closeup.match.fusion import fuse, word_weights
from closeup.match.scores import probabilities
from goldens import Golden, assert_close, cases


def test_the_ends_are_the_tables_themselves() -> None:
    head, clip = torch.rand(3, 4), torch.rand(3, 4)
    torch.testing.assert_close(fuse(head, clip, 0.0), head)
    torch.testing.assert_close(fuse(head, clip, 1.0), clip)
    torch.testing.assert_close(fuse(head, clip, 0.5), (head * clip).sqrt())


def test_a_weight_a_word() -> None:
    head, clip = torch.rand(3, 2), torch.rand(3, 2)
    weights = word_weights([False, True], base_weight=0.0, novel_weight=1.0)
    torch.testing.assert_close(fuse(head, clip, weights), torch.stack([head[:, 0], clip[:, 1]], dim=1))


def test_a_region_that_clip_did_not_see_counts_as_one() -> None:
    head, clip = torch.rand(2, 4), torch.rand(2, 4)
    fused = fuse(head, clip, 0.3, valid=torch.tensor([True, False]))
    torch.testing.assert_close(fused[0], head[0] ** 0.7 * clip[0] ** 0.3)
    torch.testing.assert_close(fused[1], head[1] ** 0.7)


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_a_weight_outside_its_range_is_refused(weight: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        fuse(torch.rand(1, 2), torch.rand(1, 2), weight)


@pytest.mark.parametrize("golden", cases("ovseg_fusion"))
@pytest.mark.parametrize("weight", [0.3, 0.45, 0.6, 0.7, 1.0])
def test_fusion_agrees_with_ovseg(golden: Golden, weight: float) -> None:
    valid = golden["out/valid"].bool()
    head = golden["out/class_logits"].softmax(dim=1)[:, :-1]
    assert_close(head, golden["out/p_mf"])
    features = golden["in/clip_image_features"]
    clip = probabilities(cosine(features, golden["in/text_features"]), 100.0)
    fused = fuse(head, clip, weight, valid)
    semantic = torch.einsum("qc,qhw->chw", fused, golden["in/mask_logits"].sigmoid())
    assert_close(semantic, golden[f"out/sem_l{weight}"])


@pytest.mark.parametrize("golden", cases("odise_fusion"))
@pytest.mark.parametrize(("alpha", "beta"), [(0.35, 0.65), (0.3, 0.7), (0.0, 1.0)])
def test_fusion_agrees_with_odise(golden: Golden, alpha: float, beta: float) -> None:
    novel = [not seen for seen in golden["out/seen"].tolist()]
    head = golden["out/class_logits"][..., :-1].flatten(0, 1).softmax(dim=1)
    clip = golden["out/clip_logits"].flatten(0, 1).softmax(dim=1)
    fused = fuse(head, clip, word_weights(novel, base_weight=alpha, novel_weight=beta))
    assert_close(fused.log(), golden[f"out/a{alpha}_b{beta}/fused"].flatten(0, 1))


@pytest.mark.parametrize("golden", cases("fvit_fusion"))
@pytest.mark.parametrize(("alpha", "beta", "scale"), [(0.1, 0.8, 75.0), (0.1, 0.6, 50.0), (0.1, 0.4, 50.0)])
def test_fusion_agrees_with_fvit(golden: Golden, alpha: float, beta: float, scale: float) -> None:
    config = golden.config
    novel = [name not in config["seen_classes"] for name in config["all_classes"]] + [False]
    head = golden["out/det_logits"].softmax(dim=1)
    clip = probabilities(cosine(golden["out/vlm_roi_feats"], golden["in/class_embed"]), scale)
    fused = fuse(head, clip, word_weights(novel, base_weight=alpha, novel_weight=beta))
    assert_close(fused, golden[f"out/fused_a{alpha}_b{beta}_T{scale}"])
