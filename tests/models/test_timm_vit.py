from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from open_clip import CLIP
from timm.layers import HybridEmbed
from torch import Tensor

from closeup.errors import InputError, ModelError
from closeup.models.latent_pool import pool_each_token
from closeup.models.routes import get_route
from closeup.models.timm_vit import TimmVitTower
from goldens import assert_close
from tiny_towers import images, timm_clip, timm_vit_clip

ATTENTION, VALUE = get_route("attention"), get_route("value")

FORMS: dict[str, dict[str, Any]] = {
    "siglip": {},
    "siglip-head": {"proj": "linear"},
    "class-token": {"class_token": True, "global_pool": "token", "proj": "linear", "pre_norm": True},
    "mean": {"global_pool": "avg", "proj": "linear"},
    "odd-grid": {"img_size": (48, 80)},
    "norms-and-scales": {
        "qk_norm": True,
        "scale_attn_norm": True,
        "init_values": 0.5,
        "reg_tokens": 2,
        "class_token": True,
        "no_embed_class": True,
        "global_pool": "token",
    },
    "registers-in-the-pool": {"reg_tokens": 1, "pool_include_prefix": True, "qkv_bias": False},
}


@pytest.fixture(scope="module", params=FORMS)
def clip(request: pytest.FixtureRequest) -> CLIP:
    return timm_vit_clip(**FORMS[request.param])


@pytest.fixture
def tower(clip: CLIP) -> TimmVitTower:
    return read(clip)


def read(clip: CLIP) -> TimmVitTower:
    assert TimmVitTower.accepts(clip.visual)
    return TimmVitTower.from_visual(clip.visual, clip.text_projection.shape[1])


def identity_attention(tower: TimmVitTower, pictures: Tensor) -> Tensor:
    """The last block's output where a mask lets each token attend to itself alone, by timm's own block."""
    trunk = tower.visual.trunk
    tokens = tower.tokens(pictures)
    alone = torch.eye(tokens.shape[1], dtype=torch.bool)
    output: Tensor = trunk.blocks[-1](tokens, attn_mask=alone)
    return output


@torch.no_grad()
def test_pooled_equals_encode_image(clip: CLIP, tower: TimmVitTower) -> None:
    pictures = images(*tower.image_size)
    expected = clip.encode_image(pictures)
    assert_close(tower.pooled_and_dense(pictures, ATTENTION)[0], expected, 1e-5)
    assert_close(tower.pooled(pictures), expected, 1e-5)


@pytest.mark.parametrize("route", ["value", "attention"])
@pytest.mark.parametrize("size", [(64, 64), (96, 48), (32, 128)])
@torch.no_grad()
def test_any_size(tower: TimmVitTower, size: tuple[int, int], route: str) -> None:
    pictures = images(*size)
    pooled, dense = tower.pooled_and_dense(pictures, get_route(route))
    assert dense.shape == (2, tower.dim, size[0] // 16, size[1] // 16)
    assert pooled.shape == (2, tower.dim)
    assert dense.isfinite().all()
    assert pooled.isfinite().all()
    torch.testing.assert_close(tower.dense(pictures, get_route(route)), dense)


@torch.no_grad()
def test_value_route_is_a_block_whose_tokens_see_themselves_alone(tower: TimmVitTower) -> None:
    pictures = images(48, 80)
    expected = identity_attention(tower, pictures)
    ours = VALUE(tower.last_block((3, 5)), tower.tokens(pictures))
    assert_close(ours, expected, 1e-5)


@pytest.mark.parametrize("form", [name for name, form in FORMS.items() if "global_pool" not in form])
@torch.no_grad()
def test_map_of_a_learned_query_is_its_pool_of_one_token(form: str) -> None:
    tower = read(timm_vit_clip(**FORMS[form]))
    trunk = tower.visual.trunk
    pictures = images(48, 80)
    patches = trunk.norm(identity_attention(tower, pictures))[:, tower.prefix :]
    lone = torch.stack([trunk.attn_pool(patches[:, [index]]) for index in range(15)], dim=1)
    assert_close(pool_each_token(trunk.attn_pool, patches), lone, 1e-5)
    expected = tower.visual.head(trunk.head(trunk.fc_norm(lone)))
    assert_close(tower.dense(pictures, VALUE).flatten(2).transpose(1, 2), expected, 1e-5)


@torch.no_grad()
def test_another_size_is_the_model_with_resized_positions() -> None:
    """A model built at 96 x 48 with bicubic positions and the same weights gives the same embedding."""
    small = timm_vit_clip()
    large = timm_vit_clip(img_size=(96, 48))
    weights = small.visual.trunk.state_dict()
    grid = weights["pos_embed"].reshape(1, 4, 4, 32).permute(0, 3, 1, 2)
    weights["pos_embed"] = F.interpolate(grid, (6, 3), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
    large.visual.trunk.load_state_dict(weights)
    pictures = images(96, 48)
    assert_close(read(small).pooled(pictures), large.encode_image(pictures), 1e-5)


@torch.no_grad()
def test_a_native_size_that_the_patch_does_not_divide() -> None:
    """As 384 pixels with patch 14: the model sees 27 x 27 patches and drops the rest."""
    clip = timm_vit_clip(img_size=70)
    tower = read(clip)
    pictures = images(70, 70)
    pooled, dense = tower.pooled_and_dense(pictures, ATTENTION)
    assert dense.shape[2:] == (4, 4)
    assert_close(pooled, clip.encode_image(pictures), 1e-5)
    with pytest.raises(InputError, match="70 x 64"):
        tower.dense(images(70, 64), VALUE)


def test_features_are_the_blocks_outputs(tower: TimmVitTower) -> None:
    pictures = images(*tower.image_size)
    ours = tower.features(pictures, [2, 0])
    theirs = tower.visual.trunk.forward_intermediates(pictures, indices=[0, 2], intermediates_only=True)
    torch.testing.assert_close(ours[0], theirs[1])
    torch.testing.assert_close(ours[1], theirs[0])
    with pytest.raises(InputError, match="Block 3"):
        tower.features(pictures, [3])


def test_gradients_reach_what_the_value_route_uses() -> None:
    clip = timm_vit_clip(proj="linear")
    tower = read(clip)
    for route in (VALUE, ATTENTION):
        clip.zero_grad()
        torch.autograd.backward(tower.dense(images(96, 48), route).square().sum())
        idle = {name for name, parameter in clip.visual.named_parameters() if parameter.grad is None}
        assert idle == {"trunk.attn_pool.latent", "trunk.attn_pool.q.weight", "trunk.attn_pool.q.bias"}
        queries_and_keys = clip.visual.trunk.blocks[-1].attn.qkv.weight.grad[:64]
        assert bool(queries_and_keys.count_nonzero()) == (route is ATTENTION)


def test_class_token_residual_only_where_there_is_a_class_token() -> None:
    residual = get_route("value-cls-residual")
    with_token = read(timm_vit_clip(class_token=True, global_pool="token"))
    without = read(timm_vit_clip())
    assert residual.name in with_token.routes
    assert with_token.dense(images(64, 64), residual).isfinite().all()
    assert residual.name not in without.routes
    with pytest.raises(InputError, match="class token"):
        without.dense(images(64, 64), residual)


def test_no_weight_is_copied(clip: CLIP, tower: TimmVitTower) -> None:
    assert tower.visual is clip.visual
    assert not isinstance(tower, torch.nn.Module)
    assert not [value for value in vars(tower).values() if isinstance(value, Tensor)]


def test_checkpointing_gives_the_same_gradients() -> None:
    clip = timm_vit_clip()
    tower = read(clip)
    gradients = []
    for enabled in (False, True):
        clip.visual.set_grad_checkpointing(enabled)
        assert tower.checkpointing == enabled
        clip.zero_grad()
        torch.autograd.backward(tower.dense(images(64, 64), VALUE).square().sum())
        gradients.append(clip.visual.trunk.patch_embed.proj.weight.grad.clone())
    torch.testing.assert_close(*gradients)


@torch.no_grad()
def test_pixels_that_enter_through_convolutions() -> None:
    """A hybrid patch embedding (MobileCLIP-B, ViTamin), here with a stem of two convolutions."""
    clip = timm_vit_clip(class_token=True, global_pool="token")
    stem = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, stride=4), torch.nn.GELU(), torch.nn.Conv2d(8, 32, 4, stride=4))
    clip.visual.trunk.patch_embed = HybridEmbed(stem, img_size=64, embed_dim=32, proj=False)
    tower = read(clip)
    assert tower.patch == 16
    pictures = images(64, 64)
    assert_close(tower.pooled(pictures), clip.encode_image(pictures), 1e-5)
    assert tower.dense(images(96, 48), VALUE).shape[2:] == (6, 3)


def test_forms_that_cannot_be_read_are_refused() -> None:
    clip = timm_vit_clip(patch_size=(16, 8))
    with pytest.raises(ModelError, match="not square"):
        read(clip)
    with pytest.raises(ModelError, match="pools by ''"):
        read(timm_vit_clip(global_pool=""))
    assert not TimmVitTower.accepts(timm_clip("test_convnext2").visual)
