from __future__ import annotations

import pytest
import torch
import torchvision
from open_clip import CLIP
from open_clip.modified_resnet import ModifiedResNet

from closeup.errors import InputError
from closeup.models.position_policies import position_policy
from closeup.models.resnet import ResNetTower
from closeup.models.routes import get_route
from goldens import Golden, assert_close, cases
from tiny_towers import images, resnet_clip

ATTENTION, VALUE = get_route("attention"), get_route("value")


@pytest.fixture(scope="module")
def clip() -> CLIP:
    return resnet_clip()


@pytest.fixture
def tower(clip: CLIP) -> ResNetTower:
    assert ResNetTower.accepts(clip.visual)
    return ResNetTower.from_visual(clip.visual, 24)


def official(golden: Golden, heads: int) -> tuple[ResNetTower, list[str]]:
    """Build the golden's tower; the weights that the file does not have are returned."""
    model = golden.config["model"]
    visual = ModifiedResNet(
        model["layers"], model["output_dim"], heads, image_size=model["input_resolution"], width=model["width"]
    ).eval()
    missing, unexpected = visual.load_state_dict(golden.weights(), strict=False)
    assert not unexpected
    return ResNetTower.from_visual(visual, model["output_dim"]), missing


@pytest.mark.parametrize("golden", cases("denseclip_resnet"))
@pytest.mark.parametrize("size", ["native", "second"])
@torch.no_grad()
def test_denseclip_global_and_map(golden: Golden, size: str) -> None:
    tower, missing = official(golden, golden.meta["constants"]["attnpool_heads"])
    assert not missing
    pictures = golden[f"in/img_{size}"]
    for stage, features in enumerate(tower.features(pictures, range(4)), start=1):
        assert_close(features, golden[f"out/{size}_layer{stage}"])
    pooled, dense = tower.pooled_and_dense(pictures, ATTENTION)
    assert_close(pooled, golden[f"out/{size}_global"])
    assert_close(dense, golden[f"out/{size}_map"])
    assert_close(tower.pooled(pictures), golden[f"out/{size}_global"])


@pytest.mark.parametrize("golden", cases("denseclip_resnet"))
def test_denseclip_position_embedding_is_resized_at_load_time(golden: Golden) -> None:
    stored = golden["in/ckpt_attnpool_positional_embedding"]
    loaded = golden["out/loaded_attnpool_positional_embedding"]
    side = golden.config["model"]["input_resolution"] // 32
    twice = position_policy("resize-twice", (side, side))
    assert_close(twice(stored, (side, side)), loaded)
    assert_close(twice(stored, (2, 4)), position_policy("resize")(loaded, (2, 4)))
    assert_close(position_policy("resize")(stored, (side, side)), loaded)


@pytest.mark.parametrize("golden", cases("regionclip_attnpool_region"))
@torch.no_grad()
def test_regionclip_region_embeddings(golden: Golden) -> None:
    tower, missing = official(golden, golden.config["model"]["heads"])
    assert all(name.endswith("num_batches_tracked") for name in missing)
    pictures, boxes = golden["in/images"], golden["in/boxes"]
    c4 = tower.c4(pictures)
    assert_close(c4, golden["out/res4"])
    per_image = [boxes[boxes[:, 0] == index, 1:] / 16 for index in range(len(pictures))]
    order = torch.cat([(boxes[:, 0] == index).nonzero()[:, 0] for index in range(len(pictures))])
    embeddings = tower.region_embeddings(c4, per_image, bins=golden.config["pooler_resolution"])
    assert_close(torch.cat(embeddings), golden["out/region_embedding"][order])
    assert_close(torch.cat(tower.region_embeddings(c4, per_image)), golden["out/region_embedding"][order])
    assert_close(tower.visual.layer4(golden["out/roi_pooled"]), golden["out/roi_layer4"])


@torch.no_grad()
def test_region_embeddings_equal_roi_align_and_the_whole_pool(tower: ResNetTower) -> None:
    c4 = tower.c4(images(96, 64))
    boxes = [torch.tensor([[0.0, 0.0, 4.0, 6.0], [0.5, 1.0, 2.25, 3.0]]), torch.zeros(0, 4)]
    crops = torchvision.ops.roi_align(c4, boxes, 4, aligned=True)
    expected = tower.visual.attnpool(tower.visual.layer4(crops))
    ours = tower.region_embeddings(c4, boxes)
    assert [len(each) for each in ours] == [2, 0]
    assert_close(ours[0], expected, 1e-5)


@torch.no_grad()
def test_no_regions_at_all(tower: ResNetTower) -> None:
    c4 = tower.c4(images(64, 64))
    assert [each.shape for each in tower.region_embeddings(c4, [torch.zeros(0, 4)] * 2)] == [(0, 24)] * 2


@torch.no_grad()
def test_pooled_equals_encode_image(clip: CLIP, tower: ResNetTower) -> None:
    pictures = images(64, 64)
    expected = clip.encode_image(pictures)
    assert_close(tower.pooled_and_dense(pictures, ATTENTION)[0], expected, 1e-5)
    assert_close(tower.pooled(pictures), expected, 1e-5)


@pytest.mark.parametrize("route", ["value", "maskclip", "attention"])
@pytest.mark.parametrize("size", [(64, 64), (96, 160), (128, 32)])
@torch.no_grad()
def test_any_size(tower: ResNetTower, size: tuple[int, int], route: str) -> None:
    pictures = images(*size)
    pooled, dense = tower.pooled_and_dense(pictures, get_route(route))
    assert dense.shape == (2, 24, size[0] // 32, size[1] // 32)
    assert pooled.shape == (2, 24)
    assert dense.isfinite().all()
    assert pooled.isfinite().all()
    torch.testing.assert_close(tower.dense(pictures, get_route(route)), dense)


@torch.no_grad()
def test_value_map_is_value_and_output_projection(tower: ResNetTower) -> None:
    pictures = images(64, 96)
    pooled, dense = tower.pooled_and_dense(pictures, VALUE)
    cell = tower.features(pictures, [-1])[0][1, :, 1, 2]
    torch.testing.assert_close(dense[1, :, 1, 2], tower.visual.attnpool.c_proj(tower.visual.attnpool.v_proj(cell)))
    torch.testing.assert_close(pooled, dense.mean(dim=(2, 3)))


@torch.no_grad()
def test_position_policy_changes_other_sizes_only(clip: CLIP) -> None:
    plain = ResNetTower(clip.visual, dim=24)
    cropped = ResNetTower(clip.visual, dim=24, positions=position_policy("resize-crop", (2, 2)))
    pictures = images(64, 64)
    torch.testing.assert_close(plain.pooled(pictures), cropped.pooled(pictures))
    wide = images(32, 64)
    assert not torch.allclose(plain.pooled(wide), cropped.pooled(wide), atol=1e-3)
    with pytest.raises(InputError, match="3 x 2"):
        cropped.pooled(images(96, 64))


def test_features_have_the_stages_strides(tower: ResNetTower) -> None:
    shapes = [tuple(each.shape) for each in tower.features(images(64, 96), [0, 3, 1, -2])]
    assert shapes == [(2, 32, 16, 24), (2, 256, 2, 3), (2, 64, 8, 12), (2, 128, 4, 6)]
    assert tower.features(images(64, 64), []) == []
    with pytest.raises(InputError, match="Block 4"):
        tower.features(images(64, 64), [4])


def test_gradients_reach_what_a_route_uses(clip: CLIP) -> None:
    tower = ResNetTower.from_visual(clip.visual, 24)
    for route, unused in ((VALUE, ("q_proj", "k_proj", "positional_embedding")), (ATTENTION, ())):
        clip.zero_grad()
        torch.autograd.backward(tower.dense(images(64, 96), route).square().sum())
        for name, parameter in clip.visual.named_parameters():
            expected = not any(part in name for part in unused)
            assert (parameter.grad is not None) == expected, name
    clip.zero_grad()


def test_no_weight_is_copied(clip: CLIP, tower: ResNetTower) -> None:
    assert tower.visual is clip.visual
    assert not isinstance(tower, torch.nn.Module)
    assert not [value for value in vars(tower).values() if isinstance(value, torch.Tensor)]


def test_what_has_no_meaning_is_refused(tower: ResNetTower) -> None:
    with pytest.raises(InputError, match="value-cls-residual"):
        tower.dense(images(64, 64), get_route("value-cls-residual"))
    with pytest.raises(InputError, match="64 x 70"):
        tower.dense(images(64, 70), VALUE)
