from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from closeup.data.record import Record
from closeup.data.world import World
from closeup.errors import ConfigError, DataError, InputError, ModelError
from closeup.models.clip import Clip
from closeup.models.load import load
from closeup.models.mask_prompt import give_prompts, prompts_of
from closeup.recipes.contrastive import contrastive_loss
from closeup.recipes.maskadapt import HIGHEST_SCALE, MaskAdapt, _zoomed
from closeup.recipes.maskadapt_config import MaskAdaptConfig, Tune
from closeup.regions.masked_crops import masked_crops
from goldens import Golden, assert_close, cases
from tiny_clips import as_clip, eva_clip
from tiny_towers import resnet_clip

WORLD = World("train", count=8, size=(64, 96))
ALL = MaskAdaptConfig(masks_per_picture=100, least_area=1.0)


def tiny() -> Clip:
    return load("tiny", device="cpu", precision="fp32")


@pytest.mark.parametrize("golden", cases("ovseg_infonce"))
def test_the_official_loss_counts_equal_nouns_as_negatives(golden: Golden) -> None:
    images, texts = golden["in/image"].requires_grad_(), golden["in/text"]
    scale = golden["w/logit_scale"].requires_grad_()
    loss = contrastive_loss(F.normalize(images, dim=1), F.normalize(texts, dim=1), scale.exp())
    assert_close(loss.detach(), golden["out/loss"])
    loss.backward()
    assert images.grad is not None
    assert scale.grad is not None
    assert_close(images.grad, golden["out/grad_image"])
    assert_close(scale.grad, golden["out/grad_logit_scale"])


@pytest.mark.parametrize("tune", ["tower", "prompts"])
def test_the_loss_is_that_of_pairs_one_by_one(tune: Tune) -> None:
    clip = tiny()
    recipe = MaskAdapt(clip, WORLD, replace(ALL, tune=tune))
    batch = recipe.collate([recipe.sample(0), recipe.sample(1), recipe.sample(2)])
    labels = batch["labels"].tolist()
    assert len(set(labels)) < len(labels)
    with torch.no_grad():
        texts = clip.encode_text([f"a photo of a {World.names[label]}." for label in labels])
        images = torch.cat(
            [
                clip.encode_masked(crop[None], shown[None], normalize=True)
                if tune == "prompts"
                else clip.encode_image(crop[None], normalize=True)
                for crop, shown in zip(batch["crops"], batch["shown"], strict=True)
            ]
        )
        logits = clip.logit_scale * images @ texts.T
        for equal in ("apart", "negatives"):
            total = 0.0
            for table in (logits, logits.T):
                for row, label in enumerate(labels):
                    rivals = [c for c, other in enumerate(labels) if c == row or other != label or equal == "negatives"]
                    total -= float(table[row, row] - table[row, rivals].logsumexp(dim=0))
            again = MaskAdapt(tiny(), WORLD, replace(ALL, tune=tune, equal_nouns=equal))
            again.module.load_state_dict(recipe.module.state_dict())
            assert float(again.module(batch)["loss"]) == pytest.approx(total / (2 * len(labels)), rel=1e-4)


def test_crops_are_those_of_prediction_and_bring_their_masks() -> None:
    clip = tiny()
    recipe = MaskAdapt(clip, WORLD, ALL)
    cut = recipe.sample(3)
    records = [WORLD[index] for index in range(len(WORLD))]
    for record in records:
        assert record.masks is not None
        image, _ = clip.preprocess(record.load(), policy="native")
        crops, shown = masked_crops(image, record.masks, clip.image_size)
        if len(crops) == len(cut.crops) and torch.equal(crops, cut.crops):
            assert torch.equal(shown, cut.shown)
            return
    pytest.fail("no record has these crops")


def test_a_visit_depends_on_its_number_alone() -> None:
    config = MaskAdaptConfig(masks_per_picture=2)
    one, two = MaskAdapt(tiny(), WORLD, config), MaskAdapt(tiny(), WORLD, config)
    one.sample(4)
    for position in (7, 0):
        first, second = one.sample(position), two.sample(position)
        assert torch.equal(first.crops, second.crops)
        assert torch.equal(first.labels, second.labels)
        assert len(first.labels) <= 2


@pytest.mark.parametrize("tune", ["tower", "prompts", "both"])
def test_a_batch_without_masks_teaches_nothing_but_has_every_gradient(tune: Tune) -> None:
    for clip in (tiny(), eva_clip()):
        recipe = MaskAdapt(clip, WORLD, replace(ALL, tune=tune))
        trained = recipe.trainable()
        size = clip.image_size
        empty = {
            "crops": torch.zeros(0, 3, *size),
            "shown": torch.zeros(0, *size, dtype=torch.bool),
            "labels": torch.zeros(0, dtype=torch.long),
        }
        recipe.module(empty)["loss"].backward()
        assert all(parameter.grad is not None for parameter in trained.values())
        assert all(not parameter.grad.any() for parameter in trained.values() if parameter.grad is not None)


def test_prompts_that_a_model_has_learn_on() -> None:
    clip = tiny()
    had = give_prompts(clip.tower, 2, seed=1)
    MaskAdapt(clip, WORLD, replace(ALL, tune="prompts", depth=2))
    assert prompts_of(clip.tower) is had
    with pytest.raises(InputError, match="has mask prompts at 2 places"):
        MaskAdapt(clip, WORLD, replace(ALL, tune="prompts", depth=3))


def grown(mask: Tensor) -> Tensor:
    return F.max_pool2d(mask[None, None].float(), 3, stride=1, padding=1)[0, 0] > 0


def test_what_is_seen_of_a_crop_moves_with_its_mask() -> None:
    mask = torch.zeros(40, 40, dtype=torch.bool)
    mask[10:25, 5:30] = True
    crop = mask.float()[None].expand(3, -1, -1)
    for seed in range(20):
        seen, shown = _zoomed(crop, mask, 0.5, np.random.default_rng(seed))
        inside = seen[0] > 0.5
        # The one is bicubic, the other nearest: they part by a pixel at most.
        assert not (inside & ~grown(shown)).any()
        assert not (shown & ~grown(inside)).any()
    whole, same = _zoomed(crop, mask, 1.0, np.random.default_rng(0))
    assert whole.shape == crop.shape
    assert same.shape == mask.shape


def test_prompts_learn_alone_and_the_tower_without_them() -> None:
    clip = tiny()
    recipe = MaskAdapt(clip, WORLD, MaskAdaptConfig(tune="prompts", depth=2))
    assert set(recipe.trainable()) == {"visual.mask_prompts.tokens", "scale"}
    prompts = prompts_of(clip.tower)
    assert prompts is not None
    assert prompts.depth == 2
    tower = set(MaskAdapt(tiny(), WORLD).trainable())
    assert "visual.mask_prompts.tokens" not in tower
    assert {"scale", "visual.proj", "visual.conv1.weight"} <= tower
    # Prompts that are there already stay as they are while the tower learns.
    assert set(MaskAdapt(clip, WORLD).trainable()) == tower


class Odd:
    """Pictures whose masks are empty or of no word, one without any, and a label map."""

    names = ("star", "grass")
    things = (True, False)

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Record:
        picture = np.zeros((20, 20, 3), dtype=np.uint8)
        masks = torch.zeros(2, 20, 20, dtype=torch.bool)
        masks[1] = True
        if index == 0:
            return Record("a", picture, (20, 20), masks=masks, labels=torch.tensor([0, -1]))
        if index == 1:
            return Record("b", picture, (20, 20), masks=masks[:0], labels=torch.zeros(0, dtype=torch.long))
        return Record("c", picture, (20, 20), label_map=torch.zeros(20, 20, dtype=torch.long))


def test_pictures_without_a_usable_mask_teach_nothing() -> None:
    recipe = MaskAdapt(tiny(), Odd(), MaskAdaptConfig(masks_per_picture=3))
    cuts = [recipe.sample(position) for position in range(3)]
    assert sorted(len(cut.labels) for cut in cuts) == [0, 0, 1]
    batch = recipe.collate(cuts)
    assert batch["labels"].tolist() == [0]
    assert float(recipe.module(batch)["loss"].detach()) == pytest.approx(0)
    nothing = recipe.collate([cut for cut in cuts if not len(cut.labels)])
    loss = recipe.module(nothing)["loss"]
    loss.backward()
    assert float(loss.detach()) == 0


def test_the_factor_stays_below_a_hundred() -> None:
    recipe = MaskAdapt(tiny(), WORLD)
    with torch.no_grad():
        recipe.module.scale.fill_(9.0)
    recipe.after_step()
    assert float(recipe.module.scale.detach()) == pytest.approx(HIGHEST_SCALE)
    assert math.exp(HIGHEST_SCALE) == pytest.approx(100)


class Unlabelled(Odd):
    def __getitem__(self, index: int) -> Record:
        return Record("a", np.zeros((20, 20, 3), dtype=np.uint8), (20, 20))


class Empty(Odd):
    def __len__(self) -> int:
        return 0


def test_what_cannot_be_learned_from_is_said() -> None:
    with pytest.raises(DataError, match="no labelled masks"):
        MaskAdapt(tiny(), Unlabelled()).sample(0)
    with pytest.raises(DataError, match="no pictures"):
        MaskAdapt(tiny(), Empty())
    with pytest.raises(ModelError, match="patch tokens"):
        MaskAdapt(as_clip(resnet_clip()), WORLD, MaskAdaptConfig(tune="prompts"))
    wrong: list[dict[str, object]] = [{"depth": 0}, {"masks_per_picture": 0}, {"least_area": 0.0}]
    for changes in wrong:
        with pytest.raises(ConfigError):
            MaskAdaptConfig().replace(**changes)
