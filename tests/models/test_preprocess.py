from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import image_transform
from torch import Tensor

from closeup.errors import InputError
from closeup.models.preprocess import POLICIES, Preprocess, renormalised
from tiny_clips import picture

SIZES = [(50, 80), (80, 50), (64, 64), (7, 200), (333, 111)]
TARGETS = [(32, 32), (48, 32), (96, 96)]


def denormalised(tensor: Tensor, preprocess: Preprocess) -> Tensor:
    mean, std = (torch.tensor(value)[:, None, None] for value in (preprocess.mean, preprocess.std))
    return tensor * std + mean


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("resize_mode", ["shortest", "squash", "longest"])
def test_own_policies_are_open_clips(size: tuple[int, int], target: tuple[int, int], resize_mode: str) -> None:
    preprocess = Preprocess(target, resize_mode=resize_mode)
    image = PIL.Image.fromarray(picture(*size).numpy())
    ours, placement = preprocess(image, policy=preprocess.policy)
    assert torch.equal(ours, image_transform(target, is_train=False, resize_mode=resize_mode)(image))
    assert placement.canvas == target


@pytest.mark.parametrize("size", SIZES)
def test_corner_is_the_resized_picture_and_black(size: tuple[int, int]) -> None:
    preprocess = Preprocess((32, 32))
    image = PIL.Image.fromarray(picture(*size).numpy())
    ours, placement = preprocess(image, policy="longest-pad-corner", size=48)
    height, width = (max(1, round(side * 48 / max(size))) for side in size)
    resized = np.asarray(image.resize((width, height), PIL.Image.Resampling.BICUBIC)) / 255
    pixels = denormalised(ours, preprocess).movedim(0, 2).numpy()
    np.testing.assert_allclose(pixels[:height, :width], resized, atol=1e-6)
    np.testing.assert_allclose(pixels[height:], 0, atol=1e-6)
    np.testing.assert_allclose(pixels[:, width:], 0, atol=1e-6)
    assert placement.content == (0, 0, width, height)


@pytest.mark.parametrize("size", SIZES)
def test_longest_is_the_corner_without_its_pad(size: tuple[int, int]) -> None:
    preprocess = Preprocess((32, 32))
    image = picture(*size).numpy()
    padded, placement = preprocess(image, policy="longest-pad-corner")
    bare, bare_placement = preprocess(image, policy="longest")
    assert torch.equal(bare, padded[:, : bare.shape[1], : bare.shape[2]])
    assert placement.content == bare_placement.content


@given(st.tuples(st.integers(1, 300), st.integers(1, 300)), st.sampled_from([8, 14, 32]))
@settings(deadline=None, max_examples=30)
def test_fit_is_whole_patches_without_a_pad(size: tuple[int, int], patch: int) -> None:
    preprocess = Preprocess((4 * patch, 4 * patch))
    tensor, placement = preprocess(picture(*size).numpy(), policy="fit", patch=patch)
    assert max(tensor.shape[1:]) == 4 * patch
    assert tensor.shape[1] % patch == tensor.shape[2] % patch == 0
    assert placement.content == (0, 0, tensor.shape[2], tensor.shape[1])


def test_native_changes_no_pixel() -> None:
    preprocess = Preprocess((32, 32))
    image = picture(21, 33)
    ours, placement = preprocess(image.numpy(), policy="native")
    pixels = (denormalised(ours, preprocess) * 255).round().byte().movedim(0, 2)
    assert torch.equal(pixels, image)
    assert placement.scale == (1, 1)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("size", SIZES)
def test_placement_tells_where_a_spot_went(policy: str, size: tuple[int, int]) -> None:
    """A bright spot in the middle of the picture is found where the placement puts its box."""
    image = np.zeros((*size, 3), np.uint8)
    box = torch.tensor([[size[1] * 0.4, size[0] * 0.4, size[1] * 0.6, size[0] * 0.6]]).round()
    x0, y0, x1, y1 = box[0].int().tolist()
    image[y0:y1, x0 : max(x1, x0 + 1)] = 255
    preprocess = Preprocess((96, 96))
    tensor, placement = preprocess(image, policy=policy, patch=8)
    light = denormalised(tensor, preprocess)[0]
    assert tuple(light.shape) == placement.canvas
    rows, cols = (torch.arange(side) + 0.5 for side in light.shape)
    centre = [float((light.sum(0) * cols).sum() / light.sum()), float((light.sum(1) * rows).sum() / light.sum())]
    box[0, 2] = max(x1, x0 + 1)
    expected = placement.boxes_to_canvas(box)[0].view(2, 2).mean(0).tolist()
    assert centre == pytest.approx(expected, abs=0.6)


@pytest.mark.parametrize("policy", POLICIES)
def test_placement_maps_corners_back(policy: str) -> None:
    _, placement = Preprocess((32, 48))(picture(37, 91).numpy(), policy=policy, patch=8)
    box = torch.tensor([[3.0, 5.0, 70.0, 33.0]])
    torch.testing.assert_close(placement.boxes_to_original(placement.boxes_to_canvas(box)), box)


def test_unknown_policy_names_near_ones() -> None:
    with pytest.raises(InputError, match=r"Unknown preprocessing policy 'shortest_crop'.*'shortest-crop'"):
        Preprocess((32, 32))(picture(8, 8).numpy(), policy="shortest_crop")


@pytest.mark.parametrize("size", [0, (32, -1)])
def test_size_below_one_pixel_is_refused(size: int | tuple[int, int]) -> None:
    with pytest.raises(InputError, match="below one pixel"):
        Preprocess((32, 32))(picture(8, 8).numpy(), policy="squash", size=size)


def test_renormalised_pictures_are_those_that_the_other_model_would_make() -> None:
    given, wanted = Preprocess((32, 32)), Preprocess((32, 32), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.5))
    image = PIL.Image.fromarray(picture(40, 60).numpy())
    one, other = (each(image, policy="longest-pad-corner")[0][None] for each in (given, wanted))
    torch.testing.assert_close(renormalised(one, given, wanted), other, atol=1e-5, rtol=1e-5)
    assert renormalised(one, given, given) is one
