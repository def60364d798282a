from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from closeup.errors import InputError
from closeup.match import cosine, reduce_synonyms, word_weights
from closeup.match.mask_words import ensemble, no_object_apart, open_panoptic, paint
from goldens import Golden, assert_close, cases


def table(golden: Golden) -> tuple[Tensor, Tensor]:
    """Return the logits of the golden's proposer, no object last, and of its CLIP, for every query."""
    text = torch.cat([golden["in/text_features"], golden["w/non_object_embedding"]])
    proposer = 100 * cosine(golden["in/query_embeddings"], text)
    clip = 100 * cosine(golden["in/clip_image_features"], golden["in/text_features"])
    return proposer, clip


@pytest.mark.parametrize("golden", cases("ovseg_fusion"))
def test_the_official_fusion(golden: Golden) -> None:
    proposer, clip = table(golden)
    valid, masks = golden["out/valid"] > 0, golden["in/mask_logits"].sigmoid()
    assert torch.equal(valid, (masks > golden.config["thr"]).flatten(1).any(dim=1))
    assert_close(proposer, golden["out/class_logits"])
    assert_close(clip[valid], golden["out/clip_logits"][:, :-1])
    assert_close(no_object_apart(proposer), golden["out/p_mf"])
    assert_close(paint(no_object_apart(proposer), masks), golden["out/sem_maskformer_only"])
    for weight in golden.config["weights"]:
        if weight == 0:  # there CLIP alone, of the masks that it saw
            scores = paint(clip[valid].softmax(dim=1), masks[valid])
        else:
            scores = paint(ensemble(proposer, clip, weight, valid), masks)
        assert_close(scores, golden[f"out/sem_l{weight}"])


@pytest.mark.parametrize("golden", cases("odise_fusion"))
def test_the_official_panoptic_fusion(golden: Golden) -> None:
    config = golden.config
    owner = torch.tensor([label for label, names in enumerate(config["labels"]) for _ in names])
    words = len(config["labels"])
    known = {name for names in config["train"] for name in names}
    seen = [bool(known & set(names)) for names in config["labels"]]
    assert torch.tensor(seen).tolist() == (golden["out/seen"] > 0).tolist()
    scale = golden["in/logit_scale"]
    clip_scale = golden["w/clip.logit_scale"].exp().clamp(max=100)
    for image in range(config["B"]):
        strings = scale * cosine(golden["in/mask_embed"][image], golden["in/text_embed"])
        nothing = scale * cosine(golden["in/mask_embed"][image], golden["in/null_embed"])
        proposer = torch.cat([reduce_synonyms(strings, owner, words), nothing], dim=1)
        assert_close(proposer, golden["out/class_logits"][image])
        named = clip_scale * cosine(golden["in/clip_mask_embed"][image], golden["in/clip_text_embed"])
        clip = reduce_synonyms(named, owner, words)
        assert_close(clip, golden["out/clip_logits"][image])
        for alpha, beta in config["ab"]:
            weight = word_weights([not mark for mark in seen], base_weight=alpha, novel_weight=beta)
            found, stem = open_panoptic(proposer, clip, weight), f"out/a{alpha}_b{beta}"
            assert_close((found + 1e-8).log(), golden[f"{stem}/final"][image])
            logits = golden["in/mask_logits"][image]
            masks = F.interpolate(logits[None], config["img"], mode="bilinear")[0].sigmoid()
            assert_close(paint(found[:, :-1], masks), golden[f"{stem}/sem"][image])


def test_no_probability_is_nan_however_sure_both_are() -> None:
    proposer = torch.tensor([[400.0, 0.0, -400.0]])
    clip = torch.tensor([[-400.0, 400.0]])
    found = open_panoptic(proposer, clip, 0.5)
    assert bool(found.isfinite().all())
    assert float(found.sum()) == pytest.approx(1)


def test_the_ends_of_the_weight_are_the_parts_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    proposer, clip = torch.randn(4, 6, generator=generator), torch.randn(4, 5, generator=generator)
    torch.testing.assert_close(ensemble(proposer, clip, 0.0), proposer.softmax(dim=1)[:, :-1])
    torch.testing.assert_close(ensemble(proposer, clip, 1.0), clip.softmax(dim=1))
    words = open_panoptic(proposer, clip, 0.0)
    torch.testing.assert_close(words, proposer.softmax(dim=1))
    with pytest.raises(InputError, match="between 0 and 1"):
        ensemble(proposer, clip, 1.5)


def test_no_mask_one_mask_and_the_order_of_masks() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, masks = torch.rand(3, 5, generator=generator), torch.rand(3, 4, 6, generator=generator)
    assert float(paint(scores[:0], masks[:0]).abs().sum()) == 0
    torch.testing.assert_close(paint(scores[:1], masks[:1]), scores[0, :, None, None] * masks[0])
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(paint(scores[order], masks[order]), paint(scores, masks))
    assert open_panoptic(torch.zeros(0, 6), torch.zeros(0, 5), 0.5).shape == (0, 6)
