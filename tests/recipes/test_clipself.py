from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip import CLIP
from PIL.Image import Image
from torch import Tensor
from torchvision.ops import roi_align

from closeup.errors import ConfigError, DataError, InputError
from closeup.models.clip import Clip
from closeup.models.official_keys import official_eva_to_timm
from closeup.recipes.clipself import ClipSelf, one_minus_mean_cosine
from closeup.recipes.clipself_config import ClipSelfConfig, paper, released
from closeup.recipes.config import TrainConfig
from closeup.recipes.distill_regions import region_sources
from closeup.recipes.train import train
from closeup.regions import crop_regions
from goldens import Golden, assert_close, cases
from tiny_clips import as_clip, eva_clip, eva_config, golden_eva, vit_clip
from tiny_pictures import Pictures
from tiny_towers import fastvit_clip, resnet_clip, timm_clip, timm_vit_clip

SIZE = 48
SMALL = ClipSelfConfig(size=SIZE, max_split=3)


def golden_batch(golden: Golden) -> dict[str, Tensor]:
    slots = golden["in/loss_boxes"]
    valid = slots[..., 4] > 0
    count = int(valid.sum())
    return {
        "images": golden["in/loss_images"],
        "owners": valid.nonzero()[:, 0],
        "boxes": slots[valid][:, :4],
        "views": golden["in/loss_crops"][valid],
        "missing": torch.arange(count),
        "targets": torch.zeros(count, golden.config["model"]["embed_dim"]),
        "places": torch.zeros(count, 3, dtype=torch.long),
    }


def assert_official(clip: Clip, golden: Golden, student: dict[str, Tensor], gradients: dict[str, Tensor]) -> ClipSelf:
    recipe, batch = ClipSelf(clip, Pictures()), golden_batch(golden)
    assert not clip.model.load_state_dict(student, strict=False).unexpected_keys
    teacher = F.normalize(golden["out/loss_teacher_crop_features"], dim=1)
    assert_close(recipe.teacher(batch["views"]), teacher)
    loss = recipe.module(batch)["loss"]
    assert_close(loss, golden["out/loss_cosine"])
    loss.backward()
    parameters = dict(recipe.module.named_parameters())
    for name, expected in gradients.items():
        gradient = parameters[name].grad
        assert gradient is not None, name
        assert_close(gradient, expected)
    return recipe


@pytest.mark.parametrize("golden", cases("clipself_openclip_vit"))
def test_loss_and_gradients_are_the_official_ones_on_a_vit(golden: Golden) -> None:
    model = CLIP(**golden.config["model"]).eval()
    model.load_state_dict(golden.weights())
    gradients = golden.weights("out/grad/")
    clip = as_clip(model, golden.config["model"])
    recipe = assert_official(clip, golden, golden.weights("w_student/"), gradients)
    fused = recipe.trainable()[f"visual.transformer.resblocks.{clip.blocks - 1}.attn.in_proj_weight"]
    assert fused.grad is not None
    assert not fused.grad[: 2 * fused.shape[1]].any(), "queries and keys of the last block"


@pytest.mark.parametrize("golden", cases("clipself_eva"))
def test_loss_and_gradients_are_the_official_ones_on_an_eva(golden: Golden) -> None:
    student, gradients = (official_eva_to_timm(golden.weights(part)) for part in ("w_student/", "out/grad/"))
    clip = as_clip(golden_eva(golden), eva_config(golden.config["model"]["embed_dim"]))
    recipe = assert_official(clip, golden, student, gradients)
    parameters = dict(recipe.module.named_parameters())
    ungraded = official_eva_to_timm(dict.fromkeys(golden.meta["student_parameters_without_gradient"], torch.ones(())))
    assert len(ungraded) == 3
    for name in ungraded:
        assert parameters[name].grad is None
        assert name not in recipe.trainable()


def made(clip: Clip | None = None, seed: int = 0, **changes: object) -> ClipSelf:
    return ClipSelf(clip or vit_clip(), Pictures(), SMALL.replace(**changes), seed=seed)


def batch_of(recipe: ClipSelf, *positions: int) -> dict[str, Tensor]:
    return recipe.collate([recipe.sample(position) for position in positions])


def stirred(recipe: ClipSelf) -> ClipSelf:
    """Move the student off the teacher."""
    generator = torch.Generator().manual_seed(1)
    for parameter in recipe.trainable().values():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return recipe


@pytest.mark.parametrize("regions", ["patches", "proposals", "masks", "patches-and-proposals", "random"])
@torch.no_grad()
def test_the_loss_is_that_of_regions_encoded_one_by_one(regions: str) -> None:
    recipe = made(regions=regions)
    clip, sources = recipe.clip, region_sources(recipe.config)
    order = np.random.default_rng([0, 1, 0]).permutation(len(Pictures())).tolist()
    cosines, drawn_from = [], set()
    for position in range(4):
        record = Pictures()[order[position]]
        image = record.load()
        rng = np.random.default_rng([0, 2, position])
        source = sources[0] if len(sources) == 1 else sources[rng.integers(len(sources))]
        drawn_from.add(source)
        candidates, rows = source.regions(record, image.height, image.width, rng)
        view, placement = clip.preprocess(image, policy="longest-pad-corner", size=SIZE)
        maps = clip.encode_dense(view[None])
        for row in rows.tolist():
            box = candidates.boxes[row : row + 1]
            mask = None if candidates.masks is None else candidates.masks[row : row + 1]
            (cut,) = crop_regions(image, box, mask, source.crop, mean=clip.mean)
            teacher = clip.encode_image(clip.preprocess(cut, policy="longest-pad-centre")[0][None])
            if mask is None:
                student = roi_align(maps, [placement.boxes_to_canvas(box) / clip.patch], 1, aligned=True)[..., 0, 0]
            else:
                student = clip_mask_mean(clip, image, mask, maps)
            cosines.append(F.cosine_similarity(student, teacher)[0])
    assert drawn_from == set(sources)
    loss = recipe.module(batch_of(recipe, *range(4)))["loss"]
    torch.testing.assert_close(loss, 1 - torch.stack(cosines).mean(), atol=1e-4, rtol=0)


def clip_mask_mean(clip: Clip, image: Image, mask: Tensor, maps: Tensor) -> Tensor:
    """Weigh each cell by the share of it that the mask covers, by painting the mask on the canvas finely."""
    fine = 40
    _, placement = clip.preprocess(image, policy="longest-pad-corner", size=SIZE)
    canvas = torch.zeros(SIZE * fine, SIZE * fine)
    height, width = round(placement.height * fine), round(placement.width * fine)
    canvas[:height, :width] = F.interpolate(mask[None].float(), (height, width), mode="nearest")[0, 0]
    weights = F.avg_pool2d(canvas[None], clip.patch * fine)[0]
    return (maps[0] * weights).sum(dim=(1, 2))[None] / weights.sum()


def test_a_student_that_says_what_the_teacher_says_has_no_loss() -> None:
    recipe = made()
    batch = batch_of(recipe, 0, 1)
    with torch.no_grad():
        pooled = recipe.module.pooled(batch["images"], batch)
    batch |= {"targets": 3 * pooled, "missing": batch["missing"][:0]}
    assert float(recipe.module(batch)["loss"].detach()) == pytest.approx(0, abs=1e-6)
    batch["targets"] = -pooled
    assert float(recipe.module(batch)["loss"].detach()) == pytest.approx(2, abs=1e-6)


def test_the_order_of_regions_and_of_pictures_changes_nothing() -> None:
    recipe = stirred(made())
    batch = batch_of(recipe, 0, 1)
    count = int((batch["owners"] == 0).sum())
    order = torch.cat([torch.arange(count).flip(0), torch.arange(count, len(batch["owners"]))])
    mixed = batch | {"boxes": batch["boxes"][order], "views": batch["views"][order]}
    loss = recipe.module(batch)["loss"]
    torch.testing.assert_close(recipe.module(mixed)["loss"], loss)
    torch.testing.assert_close(recipe.module(batch_of(recipe, 1, 0))["loss"], loss)


def test_every_region_counts_the_same_whatever_its_picture() -> None:
    recipe = stirred(made(regions="patches"))
    parts = [batch_of(recipe, position) for position in (0, 1, 2)]
    sizes = torch.tensor([float(len(part["owners"])) for part in parts])
    assert len(sizes.unique()) > 1
    losses = torch.stack([recipe.module(part)["loss"].detach() for part in parts])
    torch.testing.assert_close(recipe.module(batch_of(recipe, 0, 1, 2))["loss"], (losses * sizes).sum() / sizes.sum())


def families() -> dict[str, Callable[[], Clip]]:
    return {
        "vit": vit_clip,
        "eva": eva_clip,
        "timm vit": lambda: as_clip(timm_vit_clip(proj="linear")),
        "resnet": lambda: as_clip(resnet_clip()),
        "convnext": lambda: as_clip(timm_clip("test_convnext", image_size=64)),
        "fastvit": lambda: as_clip(fastvit_clip()),
    }


@pytest.mark.parametrize("make", families().values(), ids=families())
@pytest.mark.parametrize("changes", [{"blocks": 1}, {"keep_global": 1.0}, {"image_only": True}], ids=str)
def test_only_blocks_move_in_any_tower(make: Callable[[], Clip], changes: dict[str, Any], tmp_path: Path) -> None:
    clip = make()
    before = {name: value.clone() for name, value in clip.model.state_dict().items()}
    recipe = made(clip, size=64, max_split=2, **changes)
    train(recipe, TrainConfig(steps=2, batch_size=2, rate=1e-2, precision="fp32", workers=0), tmp_path)
    moved = {name for name, value in clip.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == set(recipe.trainable()), "every one of them, and no statistics"
    teacher = recipe.teacher.clip.model.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in teacher.items())


def test_the_teacher_is_not_in_a_checkpoint() -> None:
    recipe = made()
    assert set(recipe.module.state_dict()) == {
        name for name in recipe.clip.model.state_dict() if name.startswith("visual.")
    }


def test_samples_depend_on_the_seed_and_the_position_alone() -> None:
    first, second, other = made(), made(), made(seed=1)
    batch = batch_of(first, 7, 2)
    again = batch_of(second, 7, 2)
    assert all(torch.equal(value, again[name]) for name, value in batch.items())
    assert any(batch[name].shape != value.shape for name, value in batch_of(other, 7, 2).items())
    orders = [np.random.default_rng([0, 1, epoch]).permutation(4).tolist() for epoch in range(2)]
    for epoch, order in enumerate(orders):
        for offset, index in enumerate(order):
            image = Pictures()[index].load()
            expected = first.clip.preprocess(image, policy="longest-pad-corner", size=SIZE)[0]
            assert torch.equal(first.sample(epoch * 4 + offset).image, expected)


@pytest.mark.parametrize("crops", [0, 1, 3])
def test_keeping_the_global_embedding_adds_its_cosine(crops: int) -> None:
    recipe = made(keep_global=0.7, keep_crops=crops)
    parts = {name: float(value.detach()) for name, value in recipe.module(batch_of(recipe, 0, 1)).items()}
    assert parts["whole"] == pytest.approx(0, abs=1e-6), "student and teacher are still the same"
    stirred(recipe)
    parts = {name: float(value.detach()) for name, value in recipe.module(batch_of(recipe, 0, 1)).items()}
    order = np.random.default_rng([0, 1, 0]).permutation(4)[:2].tolist()
    views = torch.stack([recipe.clip.preprocess(Pictures()[index].load())[0] for index in order])
    cut_out = [recipe.sample(position).regions for position in range(2)]
    views = torch.cat([views, *(wanted.views[:crops] for wanted in cut_out if wanted is not None)])
    with torch.no_grad():
        expected = 1 - F.cosine_similarity(recipe.clip.encode_image(views), recipe.teacher(views)).mean()
    assert parts["whole"] == pytest.approx(float(expected), abs=1e-6)
    assert parts["whole"] > 1e-3
    assert parts["loss"] == pytest.approx(parts["regions"] + 0.7 * parts["whole"], abs=1e-6)


def test_queries_of_the_last_block_move_where_they_are_used() -> None:
    query = "visual.trunk.blocks.2.attn.q_proj.weight"
    assert query not in made(eva_clip()).trainable()
    assert query in made(eva_clip(), keep_global=1.0).trainable()
    assert query in made(eva_clip(), route="attention").trainable()


def test_image_only_distils_whole_pictures_at_the_students_size() -> None:
    recipe = stirred(made(image_only=True))
    batch = batch_of(recipe, 0, 1)
    assert "boxes" not in batch
    with torch.no_grad():
        expected = 1 - F.cosine_similarity(recipe.clip.encode_image(batch["images"]), recipe.teacher(batch["views"]))
        torch.testing.assert_close(recipe.module(batch)["loss"], expected.mean())


@pytest.mark.parametrize("regions", ["patches", "masks"])
def test_a_step_draws_one_of_the_scales(regions: str) -> None:
    recipe = made(scales=(32, 40, 64), regions=regions)
    batch = batch_of(recipe, 0, 1)
    sides = set()
    for step in range(12):
        torch.manual_seed(step)
        sides.add(recipe.module.at_a_drawn_scale(batch["images"]).shape[-1])
        torch.manual_seed(step)
        first = recipe.module(batch)["loss"]
        torch.manual_seed(step)
        assert torch.equal(recipe.module(batch)["loss"], first)
        assert first.isfinite()
    assert sides == {32, 40, 64}


def test_a_size_that_the_patch_does_not_divide_is_padded() -> None:
    recipe = made(size=45)
    batch = batch_of(recipe, 0, 1)
    with torch.no_grad():
        maps = recipe.clip.encode_dense(batch["images"])
        cells = [batch["boxes"][batch["owners"] == index] * 45 / 8 for index in range(2)]
        pooled = roi_align(maps, cells, 1, aligned=True)[..., 0, 0]
        expected = 1 - F.cosine_similarity(pooled, recipe.teacher(batch["views"])).mean()
        torch.testing.assert_close(recipe.module(batch)["loss"], expected)


@pytest.mark.parametrize("make", [vit_clip, eva_clip, lambda: as_clip(timm_vit_clip(proj="linear"))])
def test_a_student_that_attends_inside_windows(make: Callable[[], Clip]) -> None:
    recipe = stirred(made(make(), window=2, size=64))
    clip, batch = recipe.clip, batch_of(recipe, 0, 1)
    loss = recipe.module(batch)["loss"]
    with torch.no_grad():
        maps = clip.encode_dense(batch["images"], window=2)
        cells = [batch["boxes"][batch["owners"] == index] * 64 / clip.patch for index in range(2)]
        pooled = roi_align(maps, cells, 1, aligned=True)[..., 0, 0]
        expected = 1 - F.cosine_similarity(pooled, recipe.teacher(batch["views"])).mean()
        torch.testing.assert_close(loss.detach(), expected)
    loss.backward()
    assert all(parameter.grad is not None for parameter in recipe.trainable().values())
    assert set(recipe.trainable()) == set(made(make()).trainable())


def test_the_student_is_given_64_cells_a_side_by_default() -> None:
    assert ClipSelf(vit_clip(), Pictures()).size == 512


def test_decay_is_for_matrices_without_bias_or_norm_in_their_name() -> None:
    recipe = made()
    decayed = {name for name, parameter in recipe.trainable().items() if recipe.decays(name, parameter)}
    assert decayed == {name for name, parameter in recipe.trainable().items() if parameter.ndim == 2}
    assert not recipe.decays("visual.blocks.0.attn.relative_bias_table", torch.nn.Parameter(torch.zeros(2, 2)))


def test_the_mean_over_no_pair_is_no_number_of_its_own() -> None:
    nothing = torch.zeros(0, 4, requires_grad=True)
    loss = one_minus_mean_cosine(nothing, nothing.detach())
    loss.backward()
    assert loss.isfinite()


def test_an_open_probe_is_evaluated() -> None:
    assert made().evaluate() == {}
    assert ClipSelf(vit_clip(), Pictures(), SMALL, probe=lambda: {"top1": 0.5}).evaluate() == {"top1": 0.5}


def test_what_cannot_be_is_said_before_training() -> None:
    with pytest.raises(ConfigError, match="has 3 blocks"):
        made(blocks=4)
    with pytest.raises(InputError, match="Unknown route 'values'"):
        made(route="values")
    with pytest.raises(InputError, match="no meaning for a ResNet tower"):
        made(as_clip(resnet_clip()), window="native")
    with pytest.raises(DataError, match="empty"):
        ClipSelf(vit_clip(), Pictures(0))
    of_data = SMALL.replace(regions="proposals", regions_from="data")
    with pytest.raises(DataError, match="has no boxes"):
        ClipSelf(vit_clip(), Pictures(labelled=False), of_data).sample(0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_split": 0}, "`max_split` must be at least 1"),
        ({"blocks": 0}, "`blocks` must be positive"),
        ({"size": -1}, "`size` must be positive"),
        ({"scales": (0,)}, "`scales` must be sizes"),
        ({"keep_crops": -1}, "`keep_crops` must not be negative"),
        ({"keep_global": -0.1}, "`keep_global` must not be negative"),
        ({"image_only": True, "keep_global": 1.0}, "Drop one"),
        ({"window": 0}, "`window` must be at least 1 cell"),
        ({"window": "natve"}, "window must be"),
        ({"image_only": True, "window": 4}, "Drop one"),
        ({"regions": "boxes"}, "regions cannot be 'boxes'"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SMALL.replace(**changes)


def test_presets_are_as_long_as_the_papers_six_epochs() -> None:
    (config, schedule), (_, alone) = paper(), released()
    assert config == ClipSelfConfig()
    assert (schedule.steps, schedule.batch_size) == (44_358, 16)
    assert (alone.steps, alone.batch_size) == (44_358, 2)
    assert (schedule.rate, schedule.betas, schedule.epsilon, schedule.warmup) == (1e-5, (0.9, 0.999), 1e-8, 1000)
    assert paper(160)[1].steps == 60
    assert json.dumps(config.to_dict())
