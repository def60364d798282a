from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from closeup._types import ImageLike
from closeup.errors import InputError, ModelError
from closeup.geometry import masks_to_boxes
from closeup.models.clip import Clip
from closeup.models.encode_regions import ENCODERS, MASKED
from closeup.models.mask_prompt import give_prompts
from closeup.regions import FG_CLIP, CropPolicy, crop_regions
from closeup.regions.masked_crops import masked_crops
from goldens import assert_close
from tiny_clips import as_clip, eva_clip, picture, vit_clip
from tiny_towers import resnet_clip

SIZES = [(40, 64), (64, 64), (40, 64), (90, 33)]


@pytest.fixture(scope="module")
def clip() -> Clip:
    return vit_clip()


def boxes_of(height: int, width: int) -> Tensor:
    parts = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.1, 0.2, 0.5, 0.9], [0.61, 0.4, 0.65, 0.45], [0.5, 0.5, 1.4, 1.2]])
    return parts * torch.tensor([width, height] * 2)


def masks_of(height: int, width: int) -> Tensor:
    rows, cols = torch.arange(height)[:, None], torch.arange(width)
    return torch.stack(
        [(rows + cols) % 7 < 3, (rows - height / 2) ** 2 + (cols - width / 2) ** 2 < 90, rows + cols == 0]
    )


def mixed() -> tuple[list[np.ndarray], list[Tensor], list[Tensor]]:
    images = [picture(*size, seed).numpy() for seed, size in enumerate(SIZES)]
    return images, [boxes_of(*size) for size in SIZES], [masks_of(*size) for size in SIZES]


def test_dense_boxes_are_roi_align_of_the_map(clip: Clip) -> None:
    images, boxes, _ = mixed()
    for image, table, ours in zip(images, boxes, clip.encode_regions(images, boxes=boxes), strict=True):
        tensor, placement = clip.preprocess(image, policy="fit")
        with torch.no_grad():
            maps = clip.encode_dense(tensor[None])
        cells = placement.boxes_to_canvas(table) / clip.patch
        assert_close(ours, F.normalize(roi_align(maps, [cells], 1, aligned=True)[..., 0, 0], dim=1), 1e-5)


def test_dense_masks_are_means_of_the_map(clip: Clip) -> None:
    image = picture(64, 64).numpy()
    tensor, _ = clip.preprocess(image, policy="fit", size=64)
    with torch.no_grad():
        maps = clip.encode_dense(tensor[None])[0]
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[:, 16:40, 8:24] = True
    ours = clip.encode_regions(image, masks=mask, size=64)[0]
    assert_close(ours[0], F.normalize(maps[:, 2:5, 1:3].mean(dim=(1, 2)), dim=0), 1e-5)


def test_grid_is_its_boxes_row_by_row(clip: Clip) -> None:
    image = picture(60, 90).numpy()
    cells = [[x, y, x + 30, y + 30] for y in (0, 30) for x in (0, 30, 60)]
    for how in ("dense", "crop"):
        by_grid = clip.encode_regions(image, grid=(2, 3), how=how)[0]
        assert_close(by_grid, clip.encode_regions(image, boxes=cells, how=how)[0], 1e-6)


@pytest.mark.parametrize("how", ["dense", "crop", "masked-crop", "mask-token"])
@pytest.mark.parametrize("make", [vit_clip, eva_clip])
def test_company_does_not_matter(make: Callable[[], Clip], how: str) -> None:
    clip = make()
    images, boxes, masks = mixed()
    regions: dict[str, Any] = {"masks": masks} if how.startswith("mask") else {"boxes": boxes}
    together = clip.encode_regions(images, how=how, batch=2, **regions)
    assert [len(part) for part in together] == [len(part) for part in next(iter(regions.values()))]
    for index, image in enumerate(images):
        own: dict[str, Any] = {name: value[index] for name, value in regions.items()}
        alone = clip.encode_regions(image, how=how, batch=1, **own)
        assert len(alone) == 1
        assert_close(together[index], alone[0], 1e-5)
        assert_close(together[index].norm(dim=1), torch.ones(len(together[index])), 1e-5)


def test_one_tensor_for_all_images(clip: Clip) -> None:
    images = [picture(40, 64, seed).numpy() for seed in range(2)]
    boxes = torch.stack([boxes_of(40, 64), boxes_of(40, 64) / 2])
    for ours, theirs in zip(
        clip.encode_regions(images, boxes=boxes), clip.encode_regions(images, boxes=[*boxes]), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_neighbours_do_not_matter(clip: Clip) -> None:
    image, boxes = picture(40, 64).numpy(), boxes_of(40, 64)
    together = clip.encode_regions(image, boxes=boxes)[0]
    for index in range(len(boxes)):
        assert_close(together[index : index + 1], clip.encode_regions(image, boxes=boxes[index : index + 1])[0], 1e-5)


def test_crop_is_the_image_of_the_cut_out(clip: Clip) -> None:
    image = PIL.Image.fromarray(picture(50, 70).numpy())
    ours = clip.encode_regions(image, boxes=[[10, 5, 40, 25]], how="crop")[0]
    cut = image.crop((10, 5, 40, 25))
    with torch.no_grad():
        tensor, _ = clip.preprocess(cut, policy="longest-pad-centre")
        assert_close(ours, clip.encode_image(tensor[None], normalize=True), 1e-5)
        squashed, _ = clip.preprocess(cut, policy="squash")
        policy = CropPolicy(shape="squash")
        ours = clip.encode_regions(image, boxes=[[10, 5, 40, 25]], how="crop", crop=policy)[0]
        assert_close(ours, clip.encode_image(squashed[None], normalize=True), 1e-5)


def test_fg_clips_crop_is_seen_as_any_picture_is(clip: Clip) -> None:
    image = PIL.Image.fromarray(picture(50, 70).numpy())
    (ours,) = clip.encode_regions(image, boxes=[[10.7, 5.2, 39.1, 15.9]], how="crop", crop=FG_CLIP)
    tensor, _ = clip.preprocess(image.crop((10, 5, 40, 16)), policy="shortest-crop")
    with torch.no_grad():
        assert_close(ours, clip.encode_image(tensor[None], normalize=True), 1e-5)


@pytest.mark.parametrize("how", ENCODERS)
def test_embeddings_may_keep_their_length(how: str) -> None:
    clip = vit_clip()
    give_prompts(clip.tower, depth=2).tokens.data.normal_()
    image, mask = picture(48, 64).numpy(), torch.zeros(2, 48, 64, dtype=torch.bool)
    mask[0, 4:30, 8:50], mask[1] = True, True
    regions: dict[str, Any] = {"masks": mask} if how in MASKED else {"boxes": masks_to_boxes(mask)}
    (raw,) = clip.encode_regions(image, how=how, normalize=False, **regions)
    (unit,) = clip.encode_regions(image, how=how, **regions)
    assert float((raw.norm(dim=1) - 1).abs().min()) > 1e-3
    if how != "dense":
        assert_close(F.normalize(raw, dim=1), unit, 1e-5)
        return
    tensor, _ = clip.preprocess(image, policy="fit")
    with torch.no_grad():
        maps = clip.encode_dense(tensor[None], normalize=False)
    assert_close(raw[1], maps[0].mean(dim=(1, 2)), 1e-5)


def test_masked_crop_does_not_see_its_surroundings(clip: Clip) -> None:
    image, mask = picture(50, 70).numpy(), torch.zeros(1, 50, 70, dtype=torch.bool)
    mask[0, 10:30, 20:50] = True
    mask[0, 10:15, 20:25] = False
    other = np.where(mask[0, :, :, None], image, 255 - image)
    first, second = clip.encode_regions([image, other], masks=[mask, mask], how="masked-crop")
    assert torch.equal(first, second)
    seen, other_seen = clip.encode_regions([image, other], masks=[mask, mask], how="crop")
    assert not torch.allclose(seen, other_seen)


def test_masked_crops_are_ovsegs_unless_told_otherwise(clip: Clip) -> None:
    image, masks = picture(50, 70).numpy(), torch.zeros(2, 50, 70, dtype=torch.bool)
    masks[0, 10:30, 20:50] = True
    masks[1, 5:45, 33] = True
    whole, _ = clip.preprocess(image, policy="native")
    crops, _ = masked_crops(whole, masks, clip.image_size)
    (found,) = clip.encode_regions(image, masks=masks, how="masked-crop")
    with torch.no_grad():
        assert_close(found, clip.encode_image(crops, normalize=True), 1e-5)
        policy = CropPolicy(masked=True)
        cuts = crop_regions(PIL.Image.fromarray(image), None, masks, policy, mean=clip.mean)
        tensors = torch.stack([clip.preprocess(cut, policy="longest-pad-centre")[0] for cut in cuts])
        (found,) = clip.encode_regions(image, masks=masks, how="masked-crop", crop=policy)
        assert_close(found, clip.encode_image(tensors, normalize=True), 1e-5)


def test_prompts_stand_where_masks_leave_out() -> None:
    clip = vit_clip()
    image, masks = picture(50, 70).numpy(), torch.zeros(9, 50, 70, dtype=torch.bool)
    masks[:, 10:30, 20:50] = torch.rand(9, 20, 30, generator=torch.Generator().manual_seed(0)) > 0.9
    masks[8] = True
    with pytest.raises(InputError, match="no mask prompts"):
        clip.encode_regions(image, masks=masks, how="mask-prompt")
    give_prompts(clip.tower, depth=2).tokens.data.normal_()
    whole, _ = clip.preprocess(image, policy="native")
    crops, shown = masked_crops(whole, masks, clip.image_size)
    (found,) = clip.encode_regions(image, masks=masks, how="mask-prompt", batch=1)
    assert_close(found, clip.encode_masked(crops, shown, normalize=True).detach(), 1e-5)
    (plain,) = clip.encode_regions(image, masks=masks, how="masked-crop")
    assert_close(found[8], plain[8], 1e-5)
    assert not torch.allclose(found[:8], plain[:8], atol=1e-3)
    none, one = clip.encode_regions([image, image], masks=[masks[:0], masks[:1]], how="mask-prompt")
    assert none.shape == (0, clip.dim)
    assert_close(one, found[:1], 1e-5)


def test_mask_tokens_see_the_squashed_picture_and_what_a_mask_touches_of_it(clip: Clip) -> None:
    image, masks = picture(50, 70).numpy(), torch.zeros(3, 50, 70, dtype=torch.bool)
    masks[0] = True
    masks[1, 13:37, 18:35] = True  # rows 8.3 to 23.7 and columns 8.2 to 16 of 32
    masks[2, 49, 69] = True
    tensor, _ = clip.preprocess(image, policy="squash")
    cells = torch.zeros(3, 4, 4, dtype=torch.bool)
    cells[0], cells[1, 1:3, 1], cells[2, 3, 3] = True, True, True
    (found,) = clip.encode_regions(image, masks=masks, how="mask-token")
    with torch.no_grad():
        assert_close(found, clip.encode_mask_tokens(tensor[None], [cells], normalize=True)[0], 1e-5)
        assert_close(found[0], clip.encode_image(tensor[None], normalize=True)[0], 1e-5)
        larger, _ = clip.preprocess(image, policy="squash", size=48)
        (found,) = clip.encode_regions(image, masks=masks[:1], how="mask-token", size=48)
        assert_close(found, clip.encode_image(larger[None], normalize=True), 1e-5)
    none, one = clip.encode_regions([image, image], masks=[masks[:0], masks[:1]], how="mask-token")
    assert (none.shape, one.shape) == ((0, clip.dim), (1, clip.dim))
    with pytest.raises(ModelError, match="copies of a class token"):
        as_clip(resnet_clip()).encode_regions(image, masks=masks, how="mask-token")


@pytest.mark.parametrize("how", ["crop", "masked-crop", "mask-token"])
def test_raw_embeddings_are_those_before_normalisation(clip: Clip, how: str) -> None:
    images, boxes, masks = mixed()
    regions: dict[str, Any] = {"boxes": boxes} if how == "crop" else {"masks": masks}
    raw = torch.cat(clip.encode_regions(images, how=how, normalize=False, **regions))
    assert not torch.allclose(raw.norm(dim=1), torch.ones(len(raw)), atol=1e-2)
    assert_close(F.normalize(raw, dim=1), torch.cat(clip.encode_regions(images, how=how, **regions)), 1e-6)


def test_raw_dense_regions_are_pooled_from_the_raw_map(clip: Clip) -> None:
    image, boxes, mask = picture(64, 64).numpy(), boxes_of(64, 64), torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[:, 16:40, 8:24] = True
    tensor, placement = clip.preprocess(image, policy="fit", size=64)
    with torch.no_grad():
        maps = clip.encode_dense(tensor[None], normalize=False)
    (found,) = clip.encode_regions(image, boxes=boxes, size=64, normalize=False)
    cells = placement.boxes_to_canvas(boxes) / clip.patch
    assert_close(found, roi_align(maps, [cells], 1, aligned=True)[..., 0, 0], 1e-5)
    (found,) = clip.encode_regions(image, masks=mask, size=64, normalize=False)
    assert_close(found[0], maps[0, :, 2:5, 1:3].mean(dim=(1, 2)), 1e-5)


def test_images_without_regions_have_their_place(clip: Clip) -> None:
    images, boxes, _ = mixed()
    boxes[0], boxes[2] = torch.zeros(0, 4), torch.zeros(0)
    for how in ("dense", "crop"):
        assert [tuple(part.shape) for part in clip.encode_regions(images, boxes=boxes, how=how)] == [
            (0, 24),
            (4, 24),
            (0, 24),
            (4, 24),
        ]
    assert clip.encode_regions([], boxes=[]) == []
    assert clip.encode_regions([], boxes=[], how="crop") == []


def test_paths_and_pictures_are_the_same_image(clip: Clip, tmp_path: Path) -> None:
    image = PIL.Image.fromarray(picture(40, 64).numpy())
    image.save(tmp_path / "a.png")
    forms: list[ImageLike] = [image, np.asarray(image), tmp_path / "a.png", str(tmp_path / "a.png")]
    expected = clip.encode_regions(image, grid=(2, 2))[0]
    for form in forms:  # one at a time: a batch of another size may round differently
        assert torch.equal(clip.encode_regions(form, grid=(2, 2))[0], expected)
    for embeddings in clip.encode_regions(forms, grid=(2, 2)):
        torch.testing.assert_close(embeddings, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "got no regions. Give boxes, masks or grid"),
        ({"boxes": [[0, 0, 1, 1]], "grid": (1, 1)}, "got boxes and grid"),
        ({"boxes": [[0, 0, 1, 1]], "how": "masked-crop"}, "got boxes. Give masks"),
        ({"boxes": [[0, 0, 1, 1]], "how": "mask-token"}, "got boxes. Give masks."),
        ({"boxes": [[0, 0, 1, 1]], "masks": np.ones((1, 40, 64), bool), "how": "mask-token"}, "got boxes and masks"),
        ({"boxes": [[0, 0, 1, 1]], "how": "crops"}, "Unknown region encoder 'crops'. Did you mean 'crop'"),
        ({"boxes": [[0, 0, 9, 9], [5, 5, 5, 9]]}, "box 1 of image 0 has no area"),
        ({"boxes": [[0, 0, 9, 9], [70, 5, 80, 9]]}, "box 1 of image 0 lies outside"),
        ({"masks": np.zeros((1, 40, 64), bool)}, "mask 0 of image 0 is empty"),
        ({"masks": np.ones((1, 64, 40), bool)}, "exchanged"),
        ({"grid": (0, 3)}, "grid of 0 x 3"),
        ({"grid": (2, 3), "batch": 0}, "batch is 0: encode at least 1"),
    ],
)
def test_wrong_regions_are_named(clip: Clip, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        clip.encode_regions(picture(40, 64).numpy(), **arguments)


def test_wrong_regions_name_their_image(clip: Clip, tmp_path: Path) -> None:
    PIL.Image.fromarray(picture(40, 64).numpy()).save(tmp_path / "b.png")
    images: list[ImageLike] = [picture(40, 64).numpy(), tmp_path / "b.png"]
    with pytest.raises(InputError, match=r"box 0 of image 1 \(.*b.png\)"):
        clip.encode_regions(images, boxes=[[[0, 0, 9, 9]], [[5, 5, 5, 9]]])
    with pytest.raises(InputError, match=r"boxes of image 1 \(.*b.png\) have shape \(1, 3\)"):
        clip.encode_regions(images, boxes=[[[0, 0, 9, 9]], [[5, 5, 5]]])
    with pytest.raises(InputError, match="boxes has 1 entries for 2 images"):
        clip.encode_regions(images, boxes=[[[0, 0, 9, 9]]])
