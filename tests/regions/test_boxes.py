from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import roi_align

from closeup.errors import InputError
from closeup.regions import box_weights, pool_boxes, whole_cells
from goldens import Golden, assert_close, cases

BINS = [1, 2, 7, 14]
RATIOS = [-1, 0, 1, 2, 3]


def by_torchvision(maps: Tensor, boxes: list[Tensor], bins: int = 1, ratio: int = -1) -> Tensor:
    pooled: Tensor = roi_align(maps, boxes, bins, 1.0, ratio, True)
    return pooled[..., 0, 0] if bins == 1 else pooled


def random_boxes(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Boxes of every size, a third of them with whole or half corners, many partly or wholly outside."""
    size = torch.tensor([width, height])
    centre = (torch.rand(count, 2, generator=generator) * 1.8 - 0.4) * size
    half = torch.rand(count, 2, generator=generator) * torch.rand(count, 1, generator=generator) * size
    boxes = torch.cat([centre - half, centre + half], dim=1)
    snapped = torch.arange(count) % 3 == 0
    boxes[snapped] = (boxes[snapped] * 2).round() / 2
    return boxes


@pytest.mark.parametrize("bins", BINS)
@pytest.mark.parametrize("ratio", RATIOS)
def test_equals_torchvision_over_random_boxes(bins: int, ratio: int) -> None:
    generator = torch.Generator().manual_seed(100 * bins + ratio)
    for height, width in [(1, 1), (1, 9), (14, 14), (32, 20), (5, 64)]:
        maps = torch.randn(3, 4, height, width, generator=generator)
        boxes = [random_boxes(count, height, width, generator) for count in (60, 0, 31)]
        ours = pool_boxes(maps, boxes, bins=bins, sampling_ratio=ratio)
        assert [len(part) for part in ours] == [60, 0, 31]
        torch.testing.assert_close(torch.cat(ours), by_torchvision(maps, boxes, bins, ratio), rtol=0, atol=1e-5)


@settings(max_examples=300, deadline=None)
@given(
    corner=st.tuples(*[st.floats(-12, 24, width=32)] * 2),
    side=st.tuples(*[st.floats(0, 30, width=32)] * 2),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    bins=st.integers(1, 5),
    ratio=st.sampled_from(RATIOS),
)
def test_equals_torchvision_on_any_box(
    corner: tuple[float, float], side: tuple[float, float], size: tuple[int, int], bins: int, ratio: int
) -> None:
    maps = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(size[0] * 20 + size[1]))
    boxes = [torch.tensor([[*corner, corner[0] + side[0], corner[1] + side[1]]])]
    ours = pool_boxes(maps, boxes, bins=bins, sampling_ratio=ratio)[0]
    # Whether a sample that lies one cell outside the map counts is a matter of the last bit.
    if not on_the_brink(boxes[0].double(), size, bins, ratio):
        torch.testing.assert_close(ours, by_torchvision(maps, boxes, bins, ratio), rtol=0, atol=1e-5)


def on_the_brink(boxes: Tensor, size: tuple[int, int], bins: int, ratio: int) -> bool:
    for axis, length in ((0, size[1]), (1, size[0])):
        start, end = (boxes[0, axis::2] - 0.5).tolist()
        width = (end - start) / bins
        samples = ratio if ratio > 0 else -int(-width // 1)
        if abs(width - round(width)) < 1e-5 and width != round(width):
            return True
        for index in range(bins * max(samples, 0)):
            place = start + (index + 0.5) * width / samples
            if 0 < min(abs(place + 1), abs(place - length)) < 1e-5:
                return True
    return False


@pytest.mark.parametrize("bins", [1, 7])
@pytest.mark.parametrize("ratio", [-1, 2])
def test_gradient_equals_torchvision(bins: int, ratio: int) -> None:
    generator = torch.Generator().manual_seed(5)
    maps = torch.randn(2, 3, 9, 13, generator=generator)
    boxes = [random_boxes(20, 9, 13, generator), random_boxes(7, 9, 13, generator)]
    maps.requires_grad_()
    ours = torch.cat(pool_boxes(maps, boxes, bins=bins, sampling_ratio=ratio))
    theirs = by_torchvision(maps, boxes, bins, ratio)
    outer = torch.randn(theirs.shape, generator=generator)
    found, expected = (torch.autograd.grad((pooled * outer).sum(), maps)[0] for pooled in (ours, theirs))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("bins", [1, 3])
def test_gradcheck(bins: int) -> None:
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(2, 2, 4, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    boxes = [random_boxes(3, 4, 5, generator).double(), random_boxes(2, 4, 5, generator).double()]
    assert torch.autograd.gradcheck(lambda x: torch.cat(pool_boxes(x, boxes, bins=bins)), (maps,))


def test_whole_cells_give_their_mean() -> None:
    maps = torch.randn(1, 3, 6, 8)
    ours = pool_boxes(maps, [torch.tensor([[2.0, 1.0, 7.0, 4.0]])])[0][0]
    torch.testing.assert_close(ours, maps[0, :, 1:4, 2:7].mean(dim=(1, 2)))


def test_a_box_without_area_gives_zeros() -> None:
    boxes = [torch.tensor([[2.0, 1.0, 2.0, 4.0], [5.0, 4.0, 3.0, 2.0]])]
    assert not pool_boxes(torch.randn(1, 3, 6, 8), boxes)[0].any()
    assert not pool_boxes(torch.randn(1, 3, 6, 8), boxes, sampling_ratio=2)[0][1].any()


def test_a_box_far_larger_than_the_map_costs_no_more() -> None:
    maps = torch.randn(1, 3, 6, 8)
    assert pool_boxes(maps, [torch.tensor([[-1e7, -1e7, 1e7, 1e7]])])[0].isfinite().all()


def test_permuting_boxes_permutes_results() -> None:
    generator = torch.Generator().manual_seed(3)
    maps, boxes = torch.randn(1, 4, 9, 7, generator=generator), random_boxes(40, 9, 7, generator)
    order = torch.randperm(40, generator=generator)
    torch.testing.assert_close(pool_boxes(maps, [boxes[order]])[0], pool_boxes(maps, [boxes])[0][order])


@pytest.mark.parametrize("bins", [1, 3])
def test_linear_in_the_map(bins: int) -> None:
    generator = torch.Generator().manual_seed(4)
    one, two = torch.randn(2, 1, 4, 9, 7, generator=generator)
    boxes = [random_boxes(30, 9, 7, generator)]
    both = 2 * pool_boxes(one, boxes, bins=bins)[0] - 3 * pool_boxes(two, boxes, bins=bins)[0]
    torch.testing.assert_close(pool_boxes(2 * one - 3 * two, boxes, bins=bins)[0], both, rtol=0, atol=1e-5)


@pytest.mark.parametrize("bins", [1, 4])
@pytest.mark.parametrize("ratio", RATIOS)
def test_extent_equals_a_map_cut_to_the_content(bins: int, ratio: int) -> None:
    generator = torch.Generator().manual_seed(6)
    maps = torch.randn(4, 3, 12, 16, generator=generator)
    extents = [(0.0, 0.0, 16.0, 7.2), (3.4, 2.0, 11.0, 10.9), (0.2, 0.1, 0.9, 0.8), (0.0, 0.0, 16.0, 12.0)]
    boxes = [random_boxes(50, 12, 16, generator) for _ in extents]
    ours = pool_boxes(maps, boxes, bins=bins, sampling_ratio=ratio, extents=extents)
    for index, extent in enumerate(extents):
        left, top, right, bottom = whole_cells(extent, 12, 16)
        cut = maps[index : index + 1, :, top:bottom, left:right]
        moved = boxes[index] - torch.tensor([left, top, left, top])
        torch.testing.assert_close(ours[index], by_torchvision(cut, [moved], bins, ratio), rtol=0, atol=2e-5)


@pytest.mark.parametrize("bins", [1, 3])
def test_a_pad_never_enters_a_region(bins: int) -> None:
    maps = torch.randn(1, 3, 12, 16)
    extents = [(1.5, 0.0, 9.5, 7.0)]
    boxes = [random_boxes(200, 12, 16, torch.Generator().manual_seed(7))]
    poisoned = maps.clone()
    poisoned[:, :, 7:] = 1e6
    poisoned[:, :, :, 10:] = 1e6
    poisoned[:, :, :, 0] = 1e6
    clean = pool_boxes(maps, boxes, bins=bins, extents=extents)[0]
    torch.testing.assert_close(pool_boxes(poisoned, boxes, bins=bins, extents=extents)[0], clean)


def test_weights_sum_to_one_inside() -> None:
    boxes = torch.rand(100, 2, generator=torch.Generator().manual_seed(8)) * 4
    rows, cols = box_weights([torch.cat([boxes, boxes + 3.3], dim=1)], (8, 9), bins=2)
    torch.testing.assert_close(rows.sum(dim=-1), torch.ones(100, 2))
    torch.testing.assert_close(cols.sum(dim=-1), torch.ones(100, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_map_sets_the_type(dtype: torch.dtype) -> None:
    maps = torch.randn(1, 16, 8, 8)
    boxes = [random_boxes(10, 8, 8, torch.Generator().manual_seed(9))]
    pooled = pool_boxes(maps.to(dtype), boxes)[0]
    assert pooled.dtype == dtype
    torch.testing.assert_close(pooled.float(), pool_boxes(maps, boxes)[0], rtol=0, atol=0.03)


def test_no_regions_at_all() -> None:
    none = torch.zeros(0, 4)
    assert [part.shape for part in pool_boxes(torch.randn(2, 3, 4, 4), [none, none])] == [(0, 3), (0, 3)]
    assert pool_boxes(torch.randn(1, 3, 4, 4), [none], bins=2)[0].shape == (0, 3, 2, 2)
    assert pool_boxes(torch.randn(0, 3, 4, 4), []) == []


def test_wrong_batches_are_named() -> None:
    maps, box = torch.randn(2, 3, 4, 4), torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    with pytest.raises(InputError, match="boxes has 1 entries for 2 images"):
        pool_boxes(maps, [box])
    with pytest.raises(InputError, match="extents has 1 entries for 2 images"):
        pool_boxes(maps, [box, box], extents=[(0.0, 0.0, 1.0, 1.0)])
    with pytest.raises(InputError, match="bins is 0"):
        pool_boxes(maps, [box, box], bins=0)


def split_by_image(rows: Tensor, images: int) -> list[Tensor]:
    return [rows[rows[:, 0] == image, 1:] for image in range(images)]


@pytest.mark.parametrize("golden", cases("clipself_openclip_vit") + cases("clipself_eva"))
def test_clipself(golden: Golden) -> None:
    for name in golden.config["box_sets"]:
        maps = golden[f"out/encode_dense_{name}"]
        boxes = split_by_image(golden[f"in/boxes_{name}"], len(maps))
        size = torch.tensor([maps.shape[3], maps.shape[2]] * 2)
        pooled = torch.cat(pool_boxes(maps, [part * size for part in boxes]))
        assert_close(pooled, golden[f"out/roi_{name}"])
        assert_close(torch.nn.functional.normalize(pooled, dim=1), golden[f"out/roi_norm_{name}"])


@pytest.mark.parametrize("golden", cases("fvit_fusion"))
def test_fvit(golden: Golden) -> None:
    maps = golden["out/large/vlm_feat"]
    rows = golden["in/rois"]
    pooled = pool_boxes(maps, [part / golden.config["patch"] for part in split_by_image(rows, len(maps))])
    expected = golden["out/vlm_roi_feats"]
    for image, part in enumerate(pooled):
        assert_close(part, expected[rows[:, 0] == image])


@pytest.mark.parametrize("golden", cases("regionclip_attnpool_region"))
def test_regionclip(golden: Golden) -> None:
    maps = golden["out/res4"]
    stride = golden["in/images"].shape[3] / maps.shape[3]
    boxes = [part / stride for part in split_by_image(golden["in/boxes"], len(maps))]
    pooled = pool_boxes(maps, boxes, bins=golden.config["pooler_resolution"], sampling_ratio=0)
    assert_close(torch.cat(pooled), golden["out/roi_pooled"])
