from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from transformers.models.maskformer.modeling_maskformer import MaskFormerHungarianMatcher, MaskFormerLoss

from closeup.errors import ConfigError
from closeup.heads.maskformer import MaskFormer
from closeup.heads.maskformer_config import MaskFormerConfig
from closeup.models.clip import Clip
from goldens import Golden, assert_close, cases
from tiny_clips import as_clip, vit_config, vit_model
from tiny_towers import images, randomise

SMALL = MaskFormerConfig(
    queries=7, channels=32, hidden=16, heads=2, layers=3, feed_forward=32, dropout=0.0, words_hidden=24
)


def vit() -> Clip:
    return as_clip(vit_model(layers=4), vit_config(layers=4))


@pytest.mark.parametrize("golden", cases("maskformer_losses"))
def test_transformers_losses_are_the_official_ones(golden: Golden) -> None:
    """Of what MaskFormer stands on here: the matching, and each loss of each layer."""
    config = golden.config
    weights = {"loss_cross_entropy": 1.0, "loss_mask": 20.0, "loss_dice": 1.0}
    matcher = MaskFormerHungarianMatcher(1.0, 20.0, 1.0)
    criterion = MaskFormerLoss(config["K"], matcher, weights, 0.1)
    logits, masks = golden["in/pred_logits"].requires_grad_(), golden["in/pred_masks"].requires_grad_()
    labels = [golden[f"in/labels_{image}"] for image in range(config["B"])]
    truth = [golden[f"in/masks_{image}"] for image in range(config["B"])]
    aside = [
        {"masks_queries_logits": masks[layer], "class_queries_logits": logits[layer]}
        for layer in range(config["layers"] - 1)
    ]
    given = criterion(masks[-1], logits[-1], truth, labels, aside)
    names = {"ce": "loss_cross_entropy", "mask": "loss_mask", "dice": "loss_dice"}
    total = torch.zeros(())
    for ours, theirs in names.items():
        for suffix in ("", *(f"_{layer}" for layer in range(config["layers"] - 1))):
            assert_close(given[theirs + suffix].detach(), golden[f"out/loss_{ours}{suffix}"])
            total = total + weights[theirs] * given[theirs + suffix]
    assert_close(total.detach(), golden["out/total"])
    total.backward()
    assert logits.grad is not None
    assert masks.grad is not None
    assert_close(logits.grad, golden["out/grad_pred_logits"])
    assert_close(masks.grad, golden["out/grad_pred_masks"])


def words(count: int = 5) -> Tensor:
    return F.normalize(torch.randn(count, 24, generator=torch.Generator().manual_seed(0)), dim=1)


def made(clip: Clip | None = None, novel: tuple[bool, ...] = (False,) * 5, **changes: object) -> MaskFormer:
    head = MaskFormer(clip or vit(), words(len(novel)), novel, SMALL.replace(**changes))
    return randomise(head, 0)  # type: ignore[return-value]


def batch(labels: tuple[int, ...] = (0, 3, 3, 1), owners: tuple[int, ...] = (0, 0, 0, 1)) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "images": images(64, 64, 2),
        "sizes": torch.tensor([[64, 64], [48, 64]]),
        "boxes": torch.tensor([[0.0, 0, 64, 64]]).repeat(len(labels), 1),
        "labels": torch.tensor(labels, dtype=torch.long),
        "owners": torch.tensor(owners, dtype=torch.long),
        "masks": torch.rand(len(labels), 64, 64, generator=generator) > 0.6,
    }


def test_losses_are_those_of_queries_one_by_one() -> None:
    """Compare with the last layer's losses written out, and each layer's matching by scipy."""
    head, given = made(layers=1), batch()
    losses = head(given)
    with torch.no_grad():
        found = head.find(given["images"])
        logits = [head.logits(each, head.words) for each in found.embeddings]
    truth = [(torch.tensor([0, 3]), [given["masks"][:1].any(0), given["masks"][1:3].any(0)])]
    truth.append((torch.tensor([1]), [given["masks"][3]]))
    nll, weight, focal, dice, count = 0.0, 0.0, 0.0, 0.0, 3
    for table, drawn, (kinds, planes) in zip(logits, found.masks, truth, strict=True):
        target = torch.stack(planes).float()
        small = F.interpolate(target[None], drawn.shape[1:], mode="nearest")[0]
        cost = torch.zeros(len(drawn), len(kinds))
        for query in range(len(drawn)):
            for place, kind in enumerate(kinds.tolist()):
                cost[query, place] = (
                    -table[query].softmax(0)[kind]
                    + 20 * focal_loss(drawn[query], small[place])
                    + dice_loss(drawn[query], small[place])
                )
        rows, cols = linear_sum_assignment(cost.detach())
        classes = torch.full((len(drawn),), len(head.words))
        classes[rows] = kinds[cols]
        share = torch.where(classes == len(head.words), 0.1, 1.0)
        nll += float((share * F.cross_entropy(table, classes, reduction="none")).sum())
        weight += float(share.sum())
        large = F.interpolate(drawn[None], target.shape[1:], mode="bilinear")[0]
        focal += sum(float(focal_loss(large[r], target[c])) for r, c in zip(rows, cols, strict=True)) / count
        dice += sum(float(dice_loss(large[r], target[c])) for r, c in zip(rows, cols, strict=True)) / count
    assert losses["classes"].item() == pytest.approx(nll / weight, rel=1e-4)
    assert losses["masks"].item() == pytest.approx(20 * focal, rel=1e-4)
    assert losses["dice"].item() == pytest.approx(dice, rel=1e-4)
    assert losses["loss"].item() == pytest.approx(nll / weight + 20 * focal + dice, rel=1e-4)


def focal_loss(logits: Tensor, target: Tensor) -> Tensor:
    share = logits.sigmoid() * target + (1 - logits.sigmoid()) * (1 - target)
    alpha = 0.25 * target + 0.75 * (1 - target)
    return (-alpha * (1 - share) ** 2 * share.log()).mean()


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    share = logits.sigmoid()
    return 1 - (2 * (share * target).sum() + 1) / (share.sum() + target.sum() + 1)


def test_every_layer_learns() -> None:
    head = made()
    three = head(batch())
    one = made(layers=1)(batch())
    assert float(three["masks"].detach()) > 1.5 * float(one["masks"].detach())
    three["loss"].backward()
    idle = {name for name, each in head.named_parameters() if each.grad is None}
    assert idle == set()


def test_no_novel_word_or_mask_reaches_the_loss() -> None:
    novel = (False, True, False, True, False)
    head = made(novel=novel)
    assert torch.equal(head.words, words()[[0, 2, 4]])
    head.eval()
    given = head(batch(labels=(0, 3, 3, 1)))
    alone = head(batch(labels=(0,), owners=(0,)))
    assert float(given["loss"].detach()) == pytest.approx(float(alone["loss"].detach()), rel=1e-6)


@pytest.mark.parametrize("labels", [(), (2,)])
def test_pictures_without_regions_have_finite_losses(labels: tuple[int, ...]) -> None:
    head = made()
    losses = head(batch(labels=labels, owners=(1,) * len(labels)))
    assert all(bool(loss.isfinite()) for loss in losses.values())
    losses["loss"].backward()


def test_any_words_can_be_asked_for_and_no_object_is_the_last() -> None:
    head = made().eval()
    found = head.find(images(64, 64, 2))
    assert found.masks.shape == (2, 7, 32, 32)
    few, many = head.logits(found.embeddings[0], words(3)), head.logits(found.embeddings[0], words(9))
    assert many.shape == (7, 10)
    torch.testing.assert_close(few[:, :2], head.logits(found.embeddings[0], words(3)[:2])[:, :2])
    torch.testing.assert_close(few[:, -1], many[:, -1])


def test_pictures_do_not_see_each_other() -> None:
    head, pictures = made().eval(), images(64, 48, 3)
    together, alone = head.find(pictures), head.find(pictures[1:2])
    torch.testing.assert_close(together.masks[1:2], alone.masks, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together.embeddings[1:2], alone.embeddings, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "wrong", [{"queries": 0}, {"hidden": 15}, {"dropout": 1.0}, {"mask_weight": -1.0}, {"blocks": (1, 2)}]
)
def test_settings_out_of_range_are_said(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        SMALL.replace(**wrong)
