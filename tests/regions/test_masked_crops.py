from __future__ import annotations

from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional as TF

from closeup.errors import InputError
from closeup.geometry import masks_to_boxes
from closeup.regions.crops import OPENAI_MEAN, CropPolicy, crop_corners, crop_regions
from closeup.regions.masked_crops import OVSEG, masked_crops
from goldens import Golden, assert_close, cases

STD = (0.26862954, 0.26130258, 0.27577711)
MEAN, DEVIATION = (torch.tensor(values)[:, None, None] for values in (OPENAI_MEAN, STD))


def normalised(image: Tensor) -> Tensor:
    return (image / 255 - MEAN) / DEVIATION


@pytest.mark.parametrize("golden", cases("ovseg_crops"))
def test_the_official_crops(golden: Golden) -> None:
    image, probabilities = golden["in/image"], golden["in/mask_prob"]
    names = {name.split("/")[0] for name in golden.names("out/")}
    assert names
    for name in sorted(names):
        threshold, _, expanded = name.removeprefix("thr").partition("_expand")
        policy = replace(OVSEG, enlarge=float(expanded or 1))
        planes = probabilities > float(threshold)
        valid = planes.flatten(1).any(dim=1)
        assert torch.equal(valid, golden[f"out/{name}/valid"] > 0)
        masks = planes[valid]
        assert torch.equal(masks_to_boxes(masks), golden[f"out/{name}/tight_boxes"])
        height, width = image.shape[1:]
        corners = crop_corners(masks_to_boxes(masks), height, width, policy.enlarge, policy.corners)
        assert corners == [tuple(map(int, row)) for row in golden[f"out/{name}/boxes"].tolist()]
        crops, shown = masked_crops(normalised(image), masks, (224, 224), policy)
        assert torch.equal(shown[:, None], golden[f"out/{name}/masks_224"] > 0)
        assert_close(crops[:, :, ::7, ::7], golden[f"out/{name}/regions_224_s7"])
        coloured = (crops * DEVIATION + MEAN) * 255
        assert_close(coloured[:, :, ::7, ::7], golden[f"out/{name}/unnorm_regions_224_s7"])
        if f"out/{name}/region_224_full" in golden:
            place = int(valid[: golden.config["full_query"]].sum())
            assert_close(crops[place], golden[f"out/{name}/region_224_full"])
        crops, shown = masked_crops(normalised(image), masks, (32, 32), policy)
        assert_close(crops, golden[f"out/{name}/size32/regions"])
        assert torch.equal(shown[:, None], golden[f"out/{name}/size32/masks"] > 0)


def scene() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 40, 60), generator=generator).float()
    masks = torch.zeros(3, 40, 60, dtype=torch.bool)
    masks[0, 5:35, 10:50] = torch.rand(30, 40, generator=generator) > 0.3
    masks[1, 20, 30] = True
    masks[2] = True
    return image, masks


def test_antialiased_crops_are_pils() -> None:
    """Compare with crops of a pale picture that PIL resizes; it rounds to whole levels, and cuts at 0 and 255."""
    image, masks = scene()
    image = image // 3 + 80
    policy = CropPolicy(shape="squash", masked=True)
    crops, _ = masked_crops(normalised(image), masks, (24, 20), policy)
    picture = PIL.Image.fromarray(image.byte().permute(1, 2, 0).numpy())
    for ours, cut in zip(crops, crop_regions(picture, None, masks, policy), strict=True):
        theirs = np.asarray(TF.resize(cut, [24, 20], TF.InterpolationMode.BICUBIC)).astype(np.float32)
        levels = ((ours * DEVIATION + MEAN) * 255).clamp(0, 255).permute(1, 2, 0).numpy()
        assert np.abs(levels - theirs).max() < 2


def test_black_is_black() -> None:
    image, masks = scene()
    x0, y0, x1, y1 = masks_to_boxes(masks[:1]).int()[0].tolist()
    red, green, blue = (-MEAN / DEVIATION).flatten().tolist()
    crops, _ = masked_crops(
        normalised(image), masks[:1], (y1 - y0, x1 - x0), replace(OVSEG, fill="zero"), black=(red, green, blue)
    )
    expected = normalised(torch.where(masks[0], image, 0.0))[:, y0:y1, x0:x1]
    torch.testing.assert_close(crops[0], expected, atol=1e-5, rtol=1e-5)


def test_what_is_masked_out_leaves_no_trace() -> None:
    image, masks = scene()
    changed = torch.where(masks[0], image, 255 - image)
    crops, shown = masked_crops(normalised(image), masks[:1], (16, 16))
    again, _ = masked_crops(normalised(changed), masks[:1], (16, 16))
    assert torch.equal(crops, again)
    assert 0 < int(shown.sum()) < 256


def test_a_mask_of_ones_is_the_whole_picture() -> None:
    image, masks = scene()
    crops, shown = masked_crops(normalised(image), masks[2:], (40, 60))
    torch.testing.assert_close(crops[0], normalised(image))
    assert bool(shown.all())


def test_crops_follow_the_order_of_masks_and_none_are_none() -> None:
    image, masks = scene()
    crops, shown = masked_crops(normalised(image), masks, (16, 16))
    order = torch.tensor([2, 0, 1])
    again, _ = masked_crops(normalised(image), masks[order], (16, 16))
    assert torch.equal(again, crops[order])
    assert bool(shown[1].all())
    crops, shown = masked_crops(normalised(image), masks[:0], (16, 16))
    assert (tuple(crops.shape), tuple(shown.shape)) == ((0, 3, 16, 16), (0, 16, 16))


def test_wrong_masks_and_policies_are_said() -> None:
    image, masks = scene()
    with pytest.raises(InputError, match=r"\(40, 59\) on an image of \(40, 60\)"):
        masked_crops(normalised(image), masks[:, :, 1:], (16, 16))
    with pytest.raises(InputError, match="Mask 1 is empty"):
        masked_crops(normalised(image), masks & (torch.arange(3) != 1)[:, None, None], (16, 16))
    with pytest.raises(InputError, match="squash"):
        masked_crops(normalised(image), masks, (16, 16), CropPolicy(masked=True))
