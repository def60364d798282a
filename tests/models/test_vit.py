from __future__ import annotations

from functools import partial
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from open_clip import CLIP
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from closeup.errors import InputError, ModelError
from closeup.models.routes import ROUTES, get_route
from closeup.models.vit import VitTower
from closeup.regions import pool_boxes, pool_masks
from goldens import Golden, assert_close, cases
from tiny_clips import as_clip, official_vit, vit_config, vit_model
from tiny_towers import images

ATTENTION, VALUE, CLS_RESIDUAL = (get_route(name) for name in ("attention", "value", "value-cls-residual"))

FORMS: dict[str, dict[str, Any]] = {
    "openai": {},
    "layer-scale": {"ls_init_value": 0.5},
    "clipa": {"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True, "pos_embed_type": "sin_cos_2d"},
    "mean": {"pool_type": "avg"},
    "norms": {"qk_norm": True, "scale_attn": True, "scale_attn_inner": True, "scale_fc": True},
    "odd-grid": {"image_size": (24, 40)},
}


@pytest.fixture(params=FORMS)
def model(request: pytest.FixtureRequest) -> CLIP:
    return vit_model(**FORMS[request.param])


def read(model: CLIP) -> VitTower:
    assert VitTower.accepts(model.visual)
    return VitTower.from_visual(model.visual, 24)


def split_by_image(table: Tensor, count: int) -> list[Tensor]:
    return [table[table[:, 0] == index, 1:] for index in range(count)]


@pytest.mark.parametrize("golden", cases("clipself_openclip_vit"))
def test_clipself_maps_boxes_and_masks(golden: Golden) -> None:
    config = golden.config
    model = CLIP(**config["model"]).eval()
    model.load_state_dict(golden.weights())
    clip = as_clip(model, config["model"])
    with torch.no_grad():
        for name in config["images"]:
            maps = clip.encode_dense(golden[f"in/img_{name}"])
            assert_close(maps, golden[f"out/encode_dense_{name}"])
        assert_close(clip.encode_image(golden["in/img_native"]), golden["out/encode_image_native"])
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


def maskclip_tower(golden: Golden) -> VitTower:
    config = golden.config
    visual = VisionTransformer(
        image_size=config["img"],
        patch_size=config["patch"],
        width=config["width"],
        layers=config["layers"],
        heads=config["heads"],
        mlp_ratio=4.0,
        output_dim=config["C"],
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    weights = golden.weights("w/backbone.")
    renames = {
        ".ln1": ".ln_1",
        ".ln2": ".ln_2",
        "attn.attn": "attn",
        "ffn.layers.0.0": "mlp.c_fc",
        "ffn.layers.1": "mlp.c_proj",
        "patch_embed.projection": "conv1",
        "layers.": "transformer.resblocks.",
    }
    state = {
        "class_embedding": weights.pop("cls_token").flatten(),
        "positional_embedding": weights.pop("pos_embed")[0],
        "proj": golden["w/decode_head.proj.weight"].flatten(1).T,
    }
    for part in ("weight", "bias"):
        state[f"ln_pre.{part}"], state[f"ln_post.{part}"] = weights.pop(f"ln0.{part}"), weights.pop(f"ln1.{part}")
    for name, tensor in weights.items():
        for old, new in renames.items():
            name = name.replace(old, new)
        state[name] = tensor
    visual.load_state_dict(state)
    return VitTower(visual.eval(), dim=config["C"])


@pytest.mark.parametrize("golden", cases("maskclip_dense"))
@torch.no_grad()
def test_maskclip_maps_and_scores(golden: Golden) -> None:
    tower = maskclip_tower(golden)
    text = golden["w/decode_head.text_embeddings"]
    for name in ("native", "wide"):
        pictures = golden[f"in/image_{name}"]
        pictures = F.pad(pictures, (0, -pictures.shape[3] % tower.patch, 0, -pictures.shape[2] % tower.patch))
        maps = tower.dense(pictures, get_route("maskclip"))
        assert_close(maps, golden[f"out/{name}/feat"])
        scores = torch.einsum("bdhw,td->bthw", F.normalize(maps, dim=1), text)
        assert_close(scores, golden[f"out/{name}/score"])
        ordinary = tower.features(pictures, [-1])[0].movedim(1, 3)
        assert_close(tower.visual.ln_post(ordinary).movedim(3, 1), golden[f"out/{name}/x"])
        block = tower.last_block(tower.grid(pictures))
        values = tower.visual.ln_post(get_route("maskclip")(block, tower.tokens(pictures)))[:, 1:]
        assert_close(values.transpose(1, 2).flatten(2), golden[f"out/{name}/v"].flatten(2))
        for which, heads in zip("qk", block.queries_keys_values(tower.tokens(pictures)), strict=False):
            projected = block.project(heads.transpose(1, 2).flatten(2))[:, 1:]
            assert_close(projected, golden[f"out/{name}/{which}"])


@pytest.mark.parametrize("golden", cases("catseg_dense"))
@torch.no_grad()
def test_catseg_dense(golden: Golden) -> None:
    config = golden.config
    tower = VitTower(official_vit(golden, config), dim=config["output_dim"])
    text = F.normalize(golden["in/text"], dim=-1)
    for name in ("native", "large"):
        pictures = golden[f"in/image_{name}"]
        last = CLS_RESIDUAL(tower.last_block(tower.grid(pictures)), tower.tokens(pictures))
        assert_close(last, golden[f"out/{name}/block{config['layers']}"])
        assert_close(tower.project(last), golden[f"out/{name}/dense"])
        maps = tower.dense(pictures, CLS_RESIDUAL)
        volume = torch.einsum("bdhw,btpd->bpthw", F.normalize(maps, dim=1), text.expand(len(maps), -1, -1, -1))
        assert_close(volume, golden[f"out/{name}/cost"])
        for index, level in enumerate(tower.features(pictures, range(config["layers"] - 1))):
            assert_close(level.flatten(2).transpose(1, 2), golden[f"out/{name}/block{index + 1}"][:, 1:])
    assert_close(tower.pooled(golden["in/image_native"]), golden["out/native/cls"])


@pytest.mark.parametrize("golden", cases("denseclip_vit"))
@pytest.mark.parametrize(("prefix", "count"), [("out/", "double"), ("out/single_cls/", "single")])
@torch.no_grad()
def test_denseclip_maps_and_levels(golden: Golden, prefix: str, count: Literal["single", "double"]) -> None:
    config = golden.config["model"]
    visual = official_vit(golden, config)
    tower = VitTower(visual, dim=config["output_dim"], positions="bilinear", class_embedding=count)
    for name in ("native", "second"):
        pooled, maps = tower.pooled_and_dense(golden[f"in/img_{name}"], ATTENTION)
        assert_close(pooled, golden[f"{prefix}{name}_global"])
        assert_close(maps, golden[f"{prefix}{name}_map"])
        levels = denseclip_levels(golden, tower.features(golden[f"in/img_{name}"], config["out_indices"]))
        for index, level in enumerate(levels):
            if f"{prefix}{name}_level{index + 1}" in golden:
                assert_close(level, golden[f"{prefix}{name}_level{index + 1}"])


def denseclip_levels(golden: Golden, levels: list[Tensor]) -> list[Tensor]:
    """DenseCLIP's ``fpn1`` to ``fpn4``: the four features brought to strides 4, 8, 16 and 32."""
    weights = golden.weights()

    def norm(x: Tensor, name: str) -> Tensor:
        return F.group_norm(x, 1, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def double(x: Tensor, name: str) -> Tensor:
        return F.conv_transpose2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride=2)

    mean, variance, weight, bias = (
        weights[f"fpn1.2.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    quarter = F.gelu(F.batch_norm(double(norm(levels[0], "fpn1.0"), "fpn1.1"), mean, variance, weight, bias))
    return [
        double(quarter, "fpn1.4"),
        double(norm(levels[1], "fpn2.0"), "fpn2.1"),
        norm(levels[2], "fpn3"),
        F.max_pool2d(norm(levels[3], "fpn4.0"), 2),
    ]


@torch.no_grad()
def test_pooled_is_open_clips_encode_image(model: CLIP) -> None:
    tower = read(model)
    pictures = images(*tower.image_size)
    expected = model.encode_image(pictures)
    assert_close(tower.pooled(pictures), expected, 1e-5)
    assert_close(tower.pooled_and_dense(pictures, ATTENTION)[0], expected, 1e-5)


@torch.no_grad()
def test_features_are_open_clips_intermediates(model: CLIP) -> None:
    tower = read(model)
    pictures = images(*tower.image_size)
    expected = model.visual.forward_intermediates(pictures, indices=[0, 2], intermediates_only=True)
    ours = tower.features(pictures, [2, 0])
    for level, official in zip(ours, reversed(expected["image_intermediates"]), strict=True):
        assert_close(level, official, 1e-5)


@torch.no_grad()
def test_value_route_is_attention_to_oneself(model: CLIP) -> None:
    tower = read(model)
    pictures = images(40, 24)
    tokens = tower.tokens(pictures)
    alone = torch.full((tokens.shape[1], tokens.shape[1]), -torch.inf).fill_diagonal_(0)
    block = model.visual.transformer.resblocks[-1]
    expected = tower.project(block(tokens, attn_mask=alone)[:, 1:])
    assert_close(tower.dense(pictures, VALUE).flatten(2).transpose(1, 2), expected, 1e-5)


class CountAttention(TorchFunctionMode):
    calls = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> object:  # noqa: ANN401
        self.calls += function is F.scaled_dot_product_attention
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("route", "calls"), [("value", 2), ("attention", 3)])
def test_no_attention_is_computed_and_thrown_away(route: str, calls: int) -> None:
    tower = read(vit_model())
    with CountAttention() as counter, torch.no_grad():
        tower.dense(images(32, 32), get_route(route))
    assert counter.calls == calls


@pytest.mark.parametrize("size", [(32, 32), (8, 8), (56, 24)])
@pytest.mark.parametrize("route", ROUTES)
@torch.no_grad()
def test_any_size_and_shape(size: tuple[int, int], route: str) -> None:
    tower = read(vit_model())
    pooled, maps = tower.pooled_and_dense(images(*size), get_route(route))
    assert maps.shape == (2, 24, size[0] // 8, size[1] // 8)
    assert pooled.shape == (2, 24)
    assert maps.isfinite().all()
    assert_close(maps, tower.dense(images(*size), get_route(route)), 1e-6)


def test_gradients_reach_the_stem_and_not_the_last_queries_and_keys() -> None:
    model = vit_model()
    read(model).dense(images(40, 24), VALUE).square().sum().backward()
    assert float(model.visual.positional_embedding.grad.abs().sum()) > 0
    assert float(model.visual.conv1.weight.grad.abs().sum()) > 0
    in_projection = model.visual.transformer.resblocks[-1].attn.in_proj_weight.grad
    assert float(in_projection[: 2 * 32].abs().max()) == 0
    assert float(in_projection[2 * 32 :].abs().sum()) > 0


def test_training_the_weights_changes_the_map_at_once() -> None:
    model = vit_model()
    tower = read(model)
    with torch.no_grad():
        before = tower.dense(images(40, 24), VALUE)
        model.visual.positional_embedding.data.mul_(2.0)
        assert not torch.allclose(before, tower.dense(images(40, 24), VALUE))


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    grads = []
    for enabled in (False, True):
        model = vit_model()
        model.set_grad_checkpointing(enabled)
        read(model).dense(images(40, 24), VALUE).square().sum().backward()
        grads.append(model.visual.conv1.weight.grad)
    assert_close(grads[1], grads[0], 1e-6)


def test_sides_that_are_no_whole_patches_are_refused() -> None:
    with pytest.raises(InputError, match="33 x 32 pixels are not a whole number of 8-pixel patches"):
        read(vit_model()).dense(images(33, 32), VALUE)


def test_unknown_block_is_refused() -> None:
    with pytest.raises(InputError, match="Block 3 does not exist: the tower has 3 blocks"):
        read(vit_model()).features(images(32, 32), [3])


@pytest.mark.parametrize(
    ("vision", "reason"),
    [
        ({"attentional_pool": True, "attn_pooler_heads": 2}, "pools by attention"),
        ({"scaled_cosine_attn": True}, "cosine"),
        ({"scale_heads": True}, "scales its heads"),
        ({"patch_size": (8, 4)}, r"not square \(8 x 4\)"),
    ],
)
def test_forms_without_a_map_are_refused(vision: dict[str, Any], reason: str) -> None:
    visual = CLIP(**vit_config(**vision)).visual
    with pytest.raises(ModelError, match=reason):
        VitTower.from_visual(visual, 24)
