from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from open_clip import CustomTextCLIP
from timm.models.eva import Eva
from torch import Tensor

from closeup.errors import ModelError
from closeup.models.eva import EvaTower
from closeup.models.routes import ROUTES, get_route
from closeup.regions import pool_boxes, pool_masks
from goldens import Golden, assert_close, cases
from tiny_clips import EVA02, PE_CORE, as_clip, eva_config, eva_model, golden_eva
from tiny_towers import images, randomise

ATTENTION, VALUE = get_route("attention"), get_route("value")

FORMS: dict[str, dict[str, Any]] = {
    "eva02": {},
    "eva01": {"qkv_fused": True, "swiglu_mlp": False, "scale_mlp": False, "scale_attn_inner": False}
    | {"use_rot_pos_emb": False, "mlp_ratio": 4.0},
    "eva02-e": {"qkv_fused": True, "use_post_norm": True, "use_rot_pos_emb": False},
    "layer-scale-mean": {"init_values": 0.5, "global_pool": "avg"},
    "registers": {"num_reg_tokens": 2, "no_embed_class": True, "qk_norm": True},
    "odd-grid": {"img_size": (24, 40)},
    "perception-encoder": PE_CORE,
    "perception-encoder-without-class-token": PE_CORE | {"class_token": False},
}


@pytest.fixture(params=FORMS)
def model(request: pytest.FixtureRequest) -> CustomTextCLIP:
    return eva_model(**FORMS[request.param])


def read(model: CustomTextCLIP) -> EvaTower:
    assert EvaTower.accepts(model.visual)
    return EvaTower.from_visual(model.visual, 24)


def split_by_image(table: Tensor, count: int) -> list[Tensor]:
    return [table[table[:, 0] == index, 1:] for index in range(count)]


@pytest.mark.parametrize("golden", cases("clipself_eva"))
@torch.no_grad()
def test_clipself_maps_boxes_and_masks(golden: Golden) -> None:
    config = golden.config
    clip = as_clip(golden_eva(golden), eva_config(config["model"]["embed_dim"]))
    assert_close(clip.encode_image(golden["in/img_native"]), golden["out/encode_image_native"])
    for name in config["images"]:
        assert_close(clip.encode_dense(golden[f"in/img_{name}"]), golden[f"out/encode_dense_{name}"])
    for name in config["box_sets"]:
        maps = clip.encode_dense(golden[f"in/img_{name}"])
        cells = torch.tensor([maps.shape[3], maps.shape[2]] * 2)
        boxes = split_by_image(golden[f"in/boxes_{name}"], len(maps))
        pooled = torch.cat(pool_boxes(maps, [part * cells for part in boxes]))
        assert_close(pooled, golden[f"out/roi_{name}"])
        assert_close(F.normalize(pooled, dim=1), golden[f"out/roi_norm_{name}"])
    for name in config["mask_sets"]:
        maps = clip.encode_dense(golden[f"in/img_{name}"])
        owner, masks = golden[f"in/masks_{name}_image"], golden[f"in/masks_{name}"]
        pooled = torch.cat(pool_masks(maps, [masks[owner == index] for index in range(len(maps))]))
        assert_close(pooled, golden[f"out/mask_{name}"])
        assert_close(F.normalize(pooled, dim=1), golden[f"out/mask_norm_{name}"])


@torch.no_grad()
def test_pooled_is_open_clips_encode_image(model: CustomTextCLIP) -> None:
    tower = read(model)
    pictures = images(*tower.image_size)
    expected = model.encode_image(pictures)
    assert_close(tower.pooled(pictures), expected, 1e-5)
    assert_close(tower.pooled_and_dense(pictures, ATTENTION)[0], expected, 1e-5)


@torch.no_grad()
def test_features_are_timms_intermediates(model: CustomTextCLIP) -> None:
    tower = read(model)
    pictures = images(*tower.image_size)
    expected = tower.trunk.forward_intermediates(pictures, indices=[0, 2], intermediates_only=True)
    for level, official in zip(tower.features(pictures, [0, 2]), expected, strict=True):
        assert_close(level, official, 1e-5)


@torch.no_grad()
def test_value_route_is_attention_to_oneself(model: CustomTextCLIP) -> None:
    tower = read(model)
    pictures = images(40, 24)
    tokens = tower.tokens(pictures)
    alone = torch.eye(tokens.shape[1], dtype=torch.bool)
    last = tower.trunk.norm(tower.trunk.blocks[-1](tokens, attn_mask=alone))[:, tower.prefix :]
    if tower.trunk.attn_pool is not None:  # the pool sees one token at a time
        last = tower.trunk.attn_pool(last.flatten(0, 1)[:, None]).unflatten(0, last.shape[:2])
    expected = tower.trunk.head(tower.trunk.fc_norm(last))
    assert_close(tower.dense(pictures, VALUE).flatten(2).transpose(1, 2), expected, 1e-5)


@pytest.mark.parametrize("trunk", [{}, PE_CORE], ids=["eva02", "perception-encoder"])
@torch.no_grad()
def test_another_size_is_a_model_built_at_that_size(trunk: dict[str, Any]) -> None:
    """timm itself at 24 x 56 pixels, its position embedding set to the resized one, its rotation its own."""
    small = eva_model(**trunk)
    large = Eva(**{**EVA02, "global_pool": "token", "num_classes": 24, **trunk, "img_size": (24, 56)}).eval()
    weights = small.visual.trunk.state_dict()
    grid = weights["pos_embed"][:, 1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, (3, 7), mode="bicubic").flatten(2).transpose(1, 2)
    weights["pos_embed"] = torch.cat([weights["pos_embed"][:, :1], resized], dim=1)
    large.load_state_dict(weights)
    assert_close(read(small).pooled(images(24, 56)), large(images(24, 56)), 1e-5)


@torch.no_grad()
def test_any_number_of_sizes_and_shapes(model: CustomTextCLIP) -> None:
    tower = read(model)
    for height, width in [(32, 32), (8, 8), (16, 64), (64, 16), (24, 40), (48, 48), (56, 8)]:
        for route in tower.routes:
            maps = tower.dense(images(height, width), ROUTES[route])
            assert maps.shape == (2, 24, height // 8, width // 8)
            assert maps.isfinite().all()


def test_last_queries_and_keys_get_no_gradient() -> None:
    model = eva_model()
    read(model).dense(images(40, 24), VALUE).square().sum().backward()
    last = model.visual.trunk.blocks[-1].attn
    assert last.q_proj.weight.grad is None
    assert last.k_proj.weight.grad is None
    assert last.q_proj.bias.grad is None
    assert float(last.v_proj.weight.grad.abs().sum()) > 0
    assert float(model.visual.trunk.pos_embed.grad.abs().sum()) > 0


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    grads = []
    for enabled in (False, True):
        model = eva_model()
        model.visual.set_grad_checkpointing(enabled)
        read(model).dense(images(40, 24), VALUE).square().sum().backward()
        grads.append(model.visual.trunk.patch_embed.proj.weight.grad)
    assert_close(grads[1], grads[0], 1e-6)


@pytest.mark.parametrize(
    ("trunk", "reason"),
    [
        ({"rope_type": "mixed", "attn_type": "rope"}, "not of the plain axial form"),
        ({"rope_rotate_half": True}, "not of the plain axial form"),
        ({"global_pool": "max"}, "pools by 'max'"),
    ],
)
def test_forms_without_a_map_are_refused(trunk: dict[str, Any], reason: str) -> None:
    model = eva_model()
    model.visual.trunk = randomise(Eva(**{**EVA02, "num_classes": 24, **trunk}))
    with pytest.raises(ModelError, match=reason):
        EvaTower.from_visual(model.visual, 24)
