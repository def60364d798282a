from __future__ import annotations

import pytest
import torch
from open_clip import CLIP
from torch import Tensor

from closeup.errors import InputError, ModelError
from closeup.models.routes import get_route
from closeup.models.timm_conv import ConvTower
from goldens import assert_close
from tiny_towers import fastvit_clip, images, timm_clip

ATTENTION, VALUE = get_route("attention"), get_route("value")


@pytest.fixture(scope="module", params=["linear", "mlp", "fastvit"])
def clip(request: pytest.FixtureRequest) -> CLIP:
    if request.param == "fastvit":
        return fastvit_clip()
    return timm_clip("test_convnext2", image_size=64, proj=request.param)


@pytest.fixture
def tower(clip: CLIP) -> ConvTower:
    assert ConvTower.accepts(clip.visual)
    return ConvTower.from_visual(clip.visual, 24)


@torch.no_grad()
def test_pooled_equals_encode_image_at_any_size(clip: CLIP, tower: ConvTower) -> None:
    for size in ((64, 64), (96, 128)):
        pictures = images(*size)
        expected = clip.encode_image(pictures)
        assert_close(tower.pooled_and_dense(pictures, ATTENTION)[0], expected, 1e-5)
        assert_close(tower.pooled(pictures), expected, 1e-5)


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (128, 32)])
@torch.no_grad()
def test_any_size(tower: ConvTower, size: tuple[int, int]) -> None:
    pictures = images(*size)
    pooled, dense = tower.pooled_and_dense(pictures, VALUE)
    assert dense.shape == (2, 24, size[0] // 32, size[1] // 32)
    assert dense.isfinite().all()
    assert pooled.isfinite().all()
    torch.testing.assert_close(tower.dense(pictures, VALUE), dense)
    torch.testing.assert_close(tower.dense(pictures, ATTENTION), dense)


@torch.no_grad()
def test_a_cell_is_the_head_of_a_constant_map(clip: CLIP, tower: ConvTower) -> None:
    """Fill the last map with one of its cells: the ordinary pooled embedding is that cell of the dense map."""
    pictures = images(64, 96)
    features = clip.visual.trunk.forward_features(pictures)
    constant = features[:, :, 1:2, 2:3].expand_as(features)
    expected = clip.visual.head(clip.visual.trunk.forward_head(constant))
    assert_close(tower.dense(pictures, VALUE)[:, :, 1, 2], expected, 1e-5)


@torch.no_grad()
def test_mean_of_a_linear_heads_map_is_the_pooled_embedding() -> None:
    tower = ConvTower.from_visual(fastvit_clip().visual, 24)
    pooled, dense = tower.pooled_and_dense(images(64, 96), VALUE)
    assert_close(dense.mean(dim=(2, 3)), pooled, 1e-5)


def test_features_are_the_stages_outputs(clip: CLIP, tower: ConvTower) -> None:
    pictures = images(64, 96)
    ours = tower.features(pictures, [0, 1, 2, 3])
    theirs = clip.visual.trunk.forward_intermediates(pictures, intermediates_only=True)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
    assert [tuple(each.shape[2:]) for each in ours] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    with pytest.raises(InputError, match="Block 4"):
        tower.features(pictures, [4])


def test_gradients_reach_every_weight(clip: CLIP, tower: ConvTower) -> None:
    clip.zero_grad()
    torch.autograd.backward(tower.dense(images(64, 96), VALUE).square().sum())
    assert all(parameter.grad is not None for parameter in clip.visual.parameters())
    clip.zero_grad()


def test_no_weight_is_copied(clip: CLIP, tower: ConvTower) -> None:
    assert tower.visual is clip.visual
    assert not isinstance(tower, torch.nn.Module)
    assert not [value for value in vars(tower).values() if isinstance(value, Tensor)]


def test_what_has_no_meaning_is_refused(tower: ConvTower) -> None:
    with pytest.raises(InputError, match="value-cls-residual"):
        tower.dense(images(64, 64), get_route("value-cls-residual"))
    with pytest.raises(InputError, match="64 x 80"):
        tower.dense(images(64, 80), VALUE)
    clip = timm_clip("test_convnext2", image_size=64)
    clip.visual.trunk.reset_classifier(0, global_pool="max")
    with pytest.raises(ModelError, match="'max'"):
        ConvTower.from_visual(clip.visual, 24)
