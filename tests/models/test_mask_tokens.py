from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor, nn

from closeup.errors import InputError, ModelError
from closeup.models.clip import Clip
from closeup.models.eva import EvaTower
from closeup.models.families import build_tower
from closeup.models.mask_prompt import kept_cells
from closeup.models.mask_tokens import encode_mask_tokens
from closeup.models.token_tower import TokenTower
from closeup.models.vit import VitTower
from goldens import Golden, assert_close, cases
from tiny_clips import as_clip, eva_model, vit_clip, vit_config, vit_model
from tiny_towers import images, resnet_clip, timm_vit_clip

TOWERS: dict[str, Callable[[], nn.Module]] = {
    "vit": lambda: vit_model().visual,
    "eva": lambda: eva_model().visual,
    "registers": lambda: timm_vit_clip(proj="linear", class_token=True, reg_tokens=2, global_pool="token").visual,
}


@pytest.fixture(params=TOWERS)
def tower(request: pytest.FixtureRequest) -> TokenTower:
    tower = build_tower(TOWERS[request.param](), 24)
    assert isinstance(tower, TokenTower)
    return tower


def cells_of(tower: TokenTower, height: int, width: int, count: int = 5) -> Tensor:
    rows, cols = height // tower.patch, width // tower.patch
    kept = torch.rand(count, rows * cols, generator=torch.Generator().manual_seed(3)) > 0.6
    kept[-1] = False  # a mask that touches nothing
    return kept


def in_one_sequence(tower: TokenTower, pictures: Tensor, kept: Tensor) -> Tensor:
    """Put the mask tokens into the family's own blocks, with one large table of who attends to whom."""
    grid, tokens = tower.grid(pictures), tower.embed(pictures)
    unchanged = tower.run(tower.depth - 1, tower.tokens(pictures), grid)
    count, length = len(kept), tokens.shape[1]
    allowed = torch.zeros(count + length, count + length, dtype=torch.bool)
    allowed[:, count:] = True
    allowed[:count, count + tower.prefix :] = kept
    both = torch.cat([tokens[:, :1].expand(-1, count, -1), tokens], dim=1)
    for index in range(tower.depth):
        if isinstance(tower, VitTower):
            both = tower.visual.transformer.resblocks[index](both, attn_mask=torch.where(allowed, 0.0, -torch.inf))
            continue
        block = tower.trunk.blocks[index]  # type: ignore[attr-defined]
        if isinstance(tower, EvaTower):
            block.attn.num_prefix_tokens = count + tower.prefix
            both = block(both, rope=tower.rotation(grid), attn_mask=allowed)
        else:
            both = block(both, attn_mask=allowed)
    assert_close(both[:, count:], unchanged, 1e-5)
    return tower.project(both[:, :count])


@pytest.mark.parametrize("golden", cases("odise_fusion"))
@torch.no_grad()
def test_the_official_embeddings(golden: Golden) -> None:
    settings = golden.config["tok"]
    visual = VisionTransformer(
        image_size=settings["image_size"],
        patch_size=settings["patch"],
        width=settings["width"],
        layers=settings["layers"],
        heads=settings["width"] // 64,
        mlp_ratio=4.0,
        output_dim=settings["out"],
        act_layer=QuickGELU,
    )
    visual.load_state_dict(golden.weights("w/clip.visual."))
    tower = VitTower(visual.eval(), dim=settings["out"])
    clip = as_clip(vit_model())  # for CLIP's own mean and deviation
    resized = F.interpolate(golden["in/token_image"], tower.image_size, mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(values)[:, None, None] for values in (clip.mean, clip.std))
    masks = F.interpolate(golden["in/token_mask_logits"], tower.image_size, mode="bilinear").sigmoid()
    kept = [kept_cells(planes >= 0.5, tower.patch) for planes in masks]
    assert torch.equal(torch.stack(kept), golden["out/mask_tokens/keep"] > 0)
    found = encode_mask_tokens(tower, (resized - mean) / std, kept)
    assert_close(torch.stack(found), golden["out/mask_tokens/embed"])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 1), (2, 3)])
@torch.no_grad()
def test_tokens_are_those_of_one_sequence_and_one_large_mask(tower: TokenTower, height: int, width: int) -> None:
    height, width = height * tower.image_size[0], width * tower.image_size[1]
    pictures, kept = images(height, width), cells_of(tower, height, width)
    found = encode_mask_tokens(tower, pictures, [kept, kept])
    assert_close(torch.stack(found), in_one_sequence(tower, pictures, kept), 1e-5)


@torch.no_grad()
def test_a_mask_of_ones_is_the_whole_picture(tower: TokenTower) -> None:
    pictures = images(*tower.image_size)
    ones = cells_of(tower, *tower.image_size) | True
    for found, whole in zip(encode_mask_tokens(tower, pictures, [ones, ones]), tower.pooled(pictures), strict=True):
        assert_close(found, whole.expand_as(found), 1e-5)


@torch.no_grad()
def test_masks_do_not_know_of_each_other(tower: TokenTower) -> None:
    pictures, kept = images(*tower.image_size), cells_of(tower, *tower.image_size)
    together = encode_mask_tokens(tower, pictures, [kept, kept[:2]])
    assert [len(each) for each in together] == [5, 2]
    order = torch.tensor([4, 2, 0, 3, 1])
    assert_close(encode_mask_tokens(tower, pictures[:1], [kept[order]])[0], together[0][order], 1e-5)
    for index in range(5):
        alone = encode_mask_tokens(tower, pictures[:1], [kept[index : index + 1]])[0]
        assert_close(alone, together[0][index : index + 1], 1e-5)
    assert_close(encode_mask_tokens(tower, pictures[1:], [kept[:2]])[0], together[1], 1e-5)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(0, 2**16))
def test_any_number_of_masks_an_image(counts: list[int], seed: int) -> None:
    tower = build_tower(vit_model().visual, 24)
    generator = torch.Generator().manual_seed(seed)
    pictures = images(32, 32, len(counts), seed)
    kept = [torch.rand(count, 16, generator=generator) > 0.5 for count in counts]
    with torch.no_grad():
        found = encode_mask_tokens(tower, pictures, kept)
    assert [tuple(each.shape) for each in found] == [(count, 24) for count in counts]
    assert all(bool(each.isfinite().all()) for each in found)


@torch.no_grad()
def test_an_empty_mask_sees_the_class_token_alone_and_no_mask_is_none(tower: TokenTower) -> None:
    pictures = images(*tower.image_size, 1)
    nothing = cells_of(tower, *tower.image_size)[:1] & False
    assert_close(encode_mask_tokens(tower, pictures, [nothing])[0], in_one_sequence(tower, pictures, nothing)[0], 1e-5)
    assert encode_mask_tokens(tower, pictures, [nothing[:0]])[0].shape == (0, 24)
    assert encode_mask_tokens(tower, pictures[:0], []) == []


def test_gradients_reach_the_tower(tower: TokenTower) -> None:
    pictures, kept = images(*tower.image_size, 1), cells_of(tower, *tower.image_size)
    encode_mask_tokens(tower, pictures, [kept])[0].sum().backward()
    gradients = [parameter.grad for parameter in tower.visual.parameters()]
    assert sum(gradient is not None and bool(gradient.any()) for gradient in gradients) > len(gradients) / 2


@pytest.mark.parametrize(
    "visual",
    [
        lambda: vit_model(pool_type="avg").visual,
        lambda: timm_vit_clip(proj="linear").visual,
        lambda: timm_vit_clip(proj="linear", class_token=True, global_pool="avg").visual,
        lambda: resnet_clip().visual,
    ],
)
def test_towers_without_a_class_token_to_copy_are_refused(visual: Callable[[], nn.Module]) -> None:
    tower = build_tower(visual(), 24)
    with pytest.raises(ModelError, match="Choose another region encoder"):
        encode_mask_tokens(tower, images(64, 64), [torch.ones(1, 16, dtype=torch.bool)] * 2)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return vit_clip()


@torch.no_grad()
def test_any_size_of_picture(clip: Clip) -> None:
    picture = images(30, 50, 1)
    ones = torch.ones(2, 4, 7, dtype=torch.bool)
    (found,) = clip.encode_mask_tokens(picture, [ones], normalize=True)
    assert_close(found, clip.encode_image(picture, normalize=True).expand(2, -1), 1e-5)


@torch.no_grad()
def test_a_native_size_that_the_patch_does_not_divide() -> None:
    clip = as_clip(vit_model(image_size=36), vit_config(image_size=36))
    picture = images(36, 36, 1)
    ones = torch.ones(1, 5, 5, dtype=torch.bool)
    assert_close(clip.encode_mask_tokens(picture, [ones])[0], clip.encode_image(picture), 1e-5)
    beyond = torch.zeros(1, 5, 5, dtype=torch.bool)
    beyond[:, 4] = True  # pixels that the model does not see
    (found,) = clip.encode_mask_tokens(picture, [beyond])
    assert_close(found, clip.encode_mask_tokens(picture, [ones & False])[0], 1e-6)


def test_what_does_not_fit_is_said(clip: Clip) -> None:
    ones = torch.ones(1, 4, 4, dtype=torch.bool)
    with pytest.raises(InputError, match="Masks of 1 images for 2 images"):
        clip.encode_mask_tokens(images(32, 32), [ones])
    with pytest.raises(InputError, match=r"Masks of \(4, 5\) cells for image 0"):
        clip.encode_mask_tokens(images(32, 32, 1), [torch.ones(1, 4, 5, dtype=torch.bool)])
    with pytest.raises(InputError, match="are on 9 cells"):
        encode_mask_tokens(clip.tower, images(32, 32, 1), [torch.ones(1, 9, dtype=torch.bool)])
