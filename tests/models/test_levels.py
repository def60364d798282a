"""A CLIP looked into: details against loops over cells, the joint-space part against the CLIP itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from closeup.errors import InputError, ModelError
from closeup.models.clip import Clip
from closeup.models.image_tower import image_tower
from closeup.models.levels import NEIGHBOURS, ClipWithLevels, with_levels
from closeup.models.reading import Reading
from closeup.models.routes import get_route
from goldens import assert_close
from tiny_clips import PE_CORE, as_clip, eva_model, picture, vit_clip, vit_model
from tiny_towers import fastvit_clip, images, randomise, resnet_clip, timm_clip, timm_vit_clip

TIMM_BACKBONE = {"model_cfg": {"embed_dim": 24, "vision_cfg": {"timm_backbone": "resnet10t", "image_size": 64}}}

Make = Callable[[], Any]

MAKES: dict[str, Make] = {
    "openai": vit_model,
    "eva02": eva_model,
    "perception-encoder": partial(eva_model, **PE_CORE),
    "rn50": resnet_clip,
    "siglip": timm_vit_clip,
    "siglip-384-14": partial(timm_vit_clip, img_size=70),  # a native size that the patch does not divide
    "convnext": partial(timm_clip, "test_convnext2", image_size=64),
    "mobileclip-s": fastvit_clip,
}


@pytest.fixture(scope="module", params=[*MAKES, "timm-backbone"])
def clip(request: pytest.FixtureRequest) -> Clip:
    if request.param == "timm-backbone":
        made = image_tower(TIMM_BACKBONE, name="tiny", precision="fp32")
        randomise(made.tower.visual)
        return made
    model = MAKES[request.param]()
    text: Any = getattr(model, "text", model)
    return as_clip(model, {"embed_dim": text.text_projection.shape[1]})


def native_features(clip: Clip, pictures: Tensor, levels: tuple[int, ...]) -> list[Tensor]:
    """Return maps of pictures; at the native size without the pad that ``Clip.features`` puts there."""
    if tuple(pictures.shape[2:]) == clip.image_size:
        return clip.tower.features(pictures, levels)
    return clip.features(pictures, levels)


def told_of(cells: Tensor) -> list[float]:
    """Return the mean and then the deviation of every channel of some cells (channels, cells), by numpy."""
    table = cells.double().numpy()
    return [*table.mean(axis=1), *np.sqrt(((table - table.mean(axis=1, keepdims=True)) ** 2).mean(axis=1))]


@pytest.mark.parametrize("size", [None, (96, 128), (130, 70)], ids=str)
@torch.no_grad()
def test_pictures_have_the_mean_and_deviation_of_each_level(clip: Clip, size: tuple[int, int] | None) -> None:
    pictures, levels = images(*(size or clip.image_size)), (-1, 0, 1)
    view = with_levels(clip, levels)
    found = view.encode_image(pictures)
    maps = native_features(clip, pictures, levels)
    expected = [
        [*own.tolist(), *(number for level in maps for number in told_of(level[row].flatten(1)))]
        for row, own in enumerate(clip.encode_image(pictures))
    ]
    assert_close(found, torch.tensor(expected, dtype=torch.float32))
    assert found.shape == (2, view.dim)
    assert view.dim == clip.dim + 2 * sum(level.shape[1] for level in maps)


@pytest.mark.parametrize("size", [(64, 64), (224, 192), (130, 70)], ids=str)
@torch.no_grad()
def test_cells_have_the_mean_and_deviation_of_their_neighbourhood(clip: Clip, size: tuple[int, int]) -> None:
    """A level that is finer than the map by a whole factor is told by all of its cells that lie in the map's."""
    pictures, levels, reach = images(*size, count=1), (0, 1, -1), NEIGHBOURS // 2
    for route in ("value", "attention"):
        found = with_levels(clip, levels).encode_dense(pictures, route=route, normalize=False)
        own = clip.encode_dense(pictures, route=route, normalize=False)
        assert_close(found[:, : clip.dim], own)
        rows, cols = own.shape[2:]
        maps = clip.read(pictures, levels, route=route).levels
        for row in {0, 1, rows // 2, rows - 1}:
            for col in {0, cols // 2, cols - 1}:
                expected: list[float] = []
                for level in maps:
                    down, over = level.shape[2] // rows, level.shape[3] // cols
                    assert (down * rows, over * cols) == tuple(level.shape[2:])
                    lines = slice(max(row - reach, 0) * down, (row + reach + 1) * down)
                    columns = slice(max(col - reach, 0) * over, (col + reach + 1) * over)
                    expected += told_of(level[0, :, lines, columns].flatten(1))
                cell = found[0, clip.dim :, row, col]
                assert_close(cell, torch.tensor(expected, dtype=torch.float32), 2e-4)


@torch.no_grad()
def test_length_one_is_of_the_joint_space_alone(clip: Clip) -> None:
    view, pictures = with_levels(clip, (0,)), images(96, 96)
    for encode, of in ((view.encode_image, clip.encode_image), (view.encode_dense, clip.encode_dense)):
        unit, raw = encode(pictures, normalize=True), encode(pictures, normalize=False)
        assert_close(unit[:, : clip.dim], of(pictures, normalize=True))
        assert torch.equal(unit[:, clip.dim :], raw[:, clip.dim :])


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("how", ["crop", "dense"])
def test_regions_are_those_of_the_clip_with_details(clip: Clip, how: str, normalize: bool) -> None:
    view, shown = with_levels(clip, (1,)), picture(90, 66).numpy()
    boxes = torch.tensor([[0.0, 0.0, 66.0, 90.0], [5.0, 3.0, 40.0, 33.0], [30.0, 10.0, 60.0, 80.0]])
    options: dict[str, Any] = {"how": how, "size": 96, "normalize": normalize}
    (found,) = view.encode_regions(shown, boxes=boxes, **options)
    (own,) = clip.encode_regions(shown, boxes=boxes, **options)
    assert found.shape == (3, view.dim)
    assert not found.requires_grad
    assert_close(found[:, : clip.dim], own)

    order = [2, 0, 1]
    (permuted,) = view.encode_regions(shown, boxes=boxes[order], **options)
    assert_close(permuted, found[order])

    others = [picture(90, 66, seed).numpy() for seed in (1, 2)]
    beside = view.encode_regions([others[0], shown, others[1]], boxes=[boxes[:1], boxes, boxes[:0]], **options)
    assert_close(beside[1], found)
    assert beside[2].shape == (0, view.dim)
    if how == "dense":
        tensor, placement = clip.preprocess(shown, policy="fit", size=96)
        with torch.no_grad():
            maps = view.encode_dense(tensor[None])
        cells = placement.boxes_to_canvas(boxes[1:]) / clip.patch  # those that no edge of the picture bounds
        assert_close(found[1:, clip.dim :], roi_align(maps, [cells], 1, aligned=True)[:, clip.dim :, 0, 0], 1e-4)


@torch.no_grad()
def test_masks_and_their_crops_have_details_too() -> None:
    clip = vit_clip()
    view, shown = with_levels(clip, (0, 2)), picture(64, 64).numpy()
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 8:40, 16:64] = masks[1, 32:, :24] = True
    for how in ("dense", "masked-crop"):
        (found,) = view.encode_regions(shown, masks=masks, how=how)
        (own,) = clip.encode_regions(shown, masks=masks, how=how)
        assert_close(found[:, : clip.dim], own)
        assert found.shape == (2, view.dim)


@torch.no_grad()
def test_a_picture_alone_is_itself_in_company(clip: Clip) -> None:
    view, pictures = with_levels(clip, (0, -1)), images(96, 64, count=3)
    for encode in (view.encode_image, view.encode_dense):
        assert_close(encode(pictures)[1:2], encode(pictures[1:2]))


@torch.no_grad()
def test_the_order_of_levels_is_that_asked_for() -> None:
    clip, pictures = vit_clip(), images(40, 24)
    width = with_levels(clip, (0,)).dim - clip.dim
    both, turned = (with_levels(clip, levels).encode_image(pictures) for levels in ((0, 2), (-1, -3)))
    assert torch.equal(both[:, clip.dim :], turned[:, clip.dim :].roll(width, dims=1))
    assert torch.equal(both, with_levels(clip, [-3, -1]).encode_image(pictures))


@torch.no_grad()
def test_deviations_of_what_is_large_and_hardly_changes() -> None:
    """Channels of large towers reach thousands: squares of those leave no digit of a small deviation."""
    clip, pictures = vit_clip(), images(64, 64)
    view = with_levels(clip, (0,))
    before = view.encode_dense(pictures)[:, clip.dim :]
    bias = clip.model.visual.transformer.resblocks[0].mlp.c_proj.bias
    bias.add_(2000.0)
    after = view.encode_dense(pictures)[:, clip.dim :]
    mean, deviation = after.chunk(2, dim=1)
    torch.testing.assert_close(mean, before.chunk(2, dim=1)[0] + 2000, atol=2e-3, rtol=0)
    torch.testing.assert_close(deviation, before.chunk(2, dim=1)[1], atol=2e-3, rtol=0)


def test_texts_and_the_model_are_as_they_were() -> None:
    clip = vit_clip()
    view = with_levels(clip, (0, 1))
    assert torch.equal(view.encode_text(["a dog", "a cat"]), clip.encode_text(["a dog", "a cat"]))
    assert view.encode_text([]).shape == clip.encode_text([]).shape
    assert (view.fingerprint, view.text_fingerprint) == (clip.fingerprint, clip.text_fingerprint)
    assert (view.model, view.tower, view.logit_scale) == (clip.model, clip.tower, clip.logit_scale)
    assert (clip.dim, clip.joint_dim, view.joint_dim) == (24, 24, 24)
    with torch.no_grad():
        pictures = images(40, 24)
        assert torch.equal(view.encode_both(pictures)[1], clip.encode_both(pictures)[1])
        before = view.fingerprint
        clip.model.visual.conv1.weight.add_(1)
    assert view.fingerprint != before  # one set of weights


def test_views_of_views_look_where_they_say() -> None:
    clip = vit_clip()
    first = with_levels(clip, (0, 1))
    assert isinstance(first, ClipWithLevels)
    assert (first.details, first.dim) == (128, 152)
    second = with_levels(first, (2,))
    assert isinstance(second, ClipWithLevels)
    assert (second.levels, second.details, second.dim) == ((2,), 64, 88)
    assert (first.levels, first.details) == ((0, 1), 128)
    assert with_levels(clip, ()) is clip
    assert not hasattr(clip, "levels")


def test_what_a_tower_learns_by_it_is_there() -> None:
    clip = vit_clip()
    with_levels(clip, (0,)).encode_image(images(40, 24))[:, clip.dim :].sum().backward()
    graded = {name for name, weight in clip.model.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert any("resblocks.0" in name for name in graded)
    assert not any("resblocks.1" in name for name in graded)


@pytest.mark.parametrize("make", [vit_model, timm_vit_clip, resnet_clip])
def test_half_precision_is_that_of_features(make: Make) -> None:
    model = make()
    config = {"embed_dim": model.text_projection.shape[1]}
    exact, half = (as_clip(model, config, precision) for precision in ("fp32", "bf16"))
    pictures = images(*exact.image_size)
    with torch.no_grad():
        found = with_levels(half, (0,)).encode_image(pictures)
        level = half.features(pictures, [0])[0].flatten(2)
        expected = torch.cat([half.encode_image(pictures), level.mean(2), level.std(2, correction=0)], dim=1)
        assert found.dtype == torch.float32
        assert_close(found[:, exact.dim :], expected[:, exact.dim :], 1e-6)
        assert F.cosine_similarity(found[:, : exact.dim], expected[:, : exact.dim]).min() > 0.999
        assert not torch.equal(found, with_levels(exact, (0,)).encode_image(pictures))
        maps = with_levels(half, (0,)).encode_dense(pictures)
        assert maps.dtype == torch.float32
    whole = with_levels(half, (0,)).encode_image(pictures)  # with gradients, which are not taken in half precision
    assert torch.equal(whole, with_levels(exact, (0,)).encode_image(pictures))


def test_a_level_that_is_none() -> None:
    clip = vit_clip()
    for levels, message in (
        ((0, 0), "each once"),
        ((-1, 2), "each once"),
        ((3,), "Block 3 does not exist: the tower has 3 blocks"),
        ((0, -4), "Block -4 does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            with_levels(clip, levels)
    with pytest.raises(InputError, match="one block or more"):
        ClipWithLevels(clip, ())


def test_what_cannot_be_looked_into() -> None:
    clip, pictures = vit_clip(), images(32, 32)
    view = with_levels(clip, (0,))
    with pytest.raises(InputError, match="without windows"):
        view.encode_dense(pictures, window="native")
    masks = torch.ones(2, 32, 32, dtype=torch.bool)
    with pytest.raises(InputError, match="not with mask prompts"):
        view.encode_masked(pictures, masks)
    with pytest.raises(InputError, match="not from mask tokens"):
        view.encode_mask_tokens(pictures, [torch.ones(1, 4, 4, dtype=torch.bool)] * 2)
    for how, message in (("mask-prompt", "mask prompts"), ("mask-token", "mask tokens")):
        with pytest.raises(InputError, match=message):
            view.encode_regions(picture(32, 32).numpy(), masks=masks[:1], how=how)
    with pytest.raises(InputError, match="Unknown route"):
        view.encode_dense(pictures, route="vale")


def test_a_tower_without_a_joint_space(monkeypatch: pytest.MonkeyPatch) -> None:
    clip, pictures = vit_clip(), images(32, 32)
    levels = clip.tower.read(pictures, [0], get_route("value")).levels
    monkeypatch.setattr(clip.tower, "read", lambda *_: Reading(levels, None, None))
    view = with_levels(clip, (0,))
    with pytest.raises(ModelError, match="no embedding of whole images"):
        view.encode_image(pictures)
    with pytest.raises(ModelError, match="no map in the joint space"):
        view.encode_dense(pictures)
