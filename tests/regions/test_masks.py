from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from closeup.errors import InputError
from closeup.geometry import Placement
from closeup.regions import masks_to_cells, pool_masks
from goldens import Golden, assert_close, cases

POLICIES = ["area", "any", "official", "official-antialias"]


def longest_pad_corner(height: int, width: int, side: int) -> Placement:
    scale = side / max(height, width)
    return Placement((height, width), (side, side), 0.0, 0.0, round(width * scale), round(height * scale))


def square(side: int, start: int, height: int = 480, width: int = 640) -> Tensor:
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[:, start : start + side, start : start + side] = True
    return mask


def disc(radius: int, centre: int, height: int = 480, width: int = 640) -> Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return ((x - centre) ** 2 + (y - centre) ** 2 <= radius**2)[None]


def area_by_loop(mask: Tensor, placement: Placement, patch: int) -> Tensor:
    """Paint each true pixel's rectangle on the canvas, cell by cell."""
    rows, cols = (-(-side // patch) for side in placement.canvas)
    cells = torch.zeros(rows, cols, dtype=torch.float64)
    across, down = placement.scale
    for y, x in mask.nonzero().tolist():
        for row in range(rows):
            for col in range(cols):
                left, right = placement.left + x * across, placement.left + (x + 1) * across
                top, bottom = placement.top + y * down, placement.top + (y + 1) * down
                wide = min(right, (col + 1) * patch, placement.canvas[1]) - max(left, col * patch)
                high = min(bottom, (row + 1) * patch, placement.canvas[0]) - max(top, row * patch)
                cells[row, col] += max(wide, 0) * max(high, 0) / patch**2
    return cells


@pytest.mark.parametrize("golden", cases("clipself_openclip_vit") + cases("clipself_eva"))
def test_clipself(golden: Golden) -> None:
    for name in golden.config["mask_sets"]:
        maps, image = golden[f"out/encode_dense_{name}"], golden[f"in/masks_{name}_image"]
        masks = golden[f"in/masks_{name}"]
        pooled = torch.cat(pool_masks(maps, [masks[image == index] for index in range(len(maps))]))
        assert image.diff().ge(0).all()
        assert_close(pooled, golden[f"out/mask_{name}"])
        assert_close(F.normalize(pooled, dim=1), golden[f"out/mask_norm_{name}"])


@pytest.mark.parametrize("golden", cases("odise_fusion"))
def test_odise(golden: Golden) -> None:
    maps, masks = golden["in/features"], golden["in/pool_mask_logits"].sigmoid()
    hard = torch.stack(pool_masks(maps, list(masks > 0.5)))
    assert_close(hard, golden["out/pool/hard"])
    assert_close(torch.stack(pool_masks(maps, list(masks))), golden["out/pool/soft"])
    # What ODISE's own head makes of pooled features: they are all that it takes from the map.
    weights = golden.weights("w/post.")
    normed = F.layer_norm(hard, hard.shape[2:], weights["pool_proj.0.weight"], weights["pool_proj.0.bias"])
    projected = F.linear(normed, weights["pool_proj.1.weight"], weights["pool_proj.1.bias"])
    found = projected + golden["in/decoder_output"]
    assert_close(found, golden["out/pool/pooled"])
    found = F.layer_norm(found, found.shape[2:], weights["mask_embed.0.weight"], weights["mask_embed.0.bias"])
    for layer in range(3):
        stem = f"mask_embed.1.layers.{layer}"
        found = F.linear(found if layer == 0 else found.relu(), weights[f"{stem}.weight"], weights[f"{stem}.bias"])
    assert_close(found, golden["out/pool/embed"])


def test_pooling_is_the_mean_over_the_mask() -> None:
    maps, masks = torch.randn(2, 5, 4, 6), torch.rand(2, 3, 4, 6) > 0.5
    pooled = pool_masks(maps, [masks[0], masks[1, :1]])
    assert [part.shape for part in pooled] == [(3, 5), (1, 5)]
    torch.testing.assert_close(pooled[0][2], maps[0, :, masks[0, 2]].mean(dim=1))
    torch.testing.assert_close(pooled[1][0], maps[1, :, masks[1, 0]].mean(dim=1))


def test_permuting_masks_permutes_results() -> None:
    maps, weights = torch.randn(1, 5, 4, 6), torch.rand(9, 4, 6)
    order = torch.randperm(9)
    torch.testing.assert_close(pool_masks(maps, [weights[order]])[0], pool_masks(maps, [weights])[0][order])


def test_scaling_the_weights_changes_nothing() -> None:
    maps, weights = torch.randn(1, 5, 4, 6), torch.rand(9, 4, 6)
    torch.testing.assert_close(pool_masks(maps, [weights * 7])[0], pool_masks(maps, [weights])[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_empty_masks_give_zeros_in_half_precision_too(dtype: torch.dtype) -> None:
    maps = torch.randn(1, 5, 4, 6).to(dtype)
    assert not pool_masks(maps, [torch.zeros(2, 4, 6, dtype=torch.bool)])[0].any()
    assert pool_masks(maps, [torch.zeros(0, 4, 6, dtype=torch.bool)])[0].shape == (0, 5)


def test_gradcheck() -> None:
    maps = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(3, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, m: pool_masks(x, [m])[0], (maps, weights))


def test_wrong_batch_is_named() -> None:
    with pytest.raises(InputError, match="0 entries for 1 images"):
        pool_masks(torch.randn(1, 2, 3, 4), [])
    with pytest.raises(InputError, match=r"image 0 are on \(6, 8\) cells and its map has \(3, 4\)"):
        pool_masks(torch.randn(1, 2, 3, 4), [torch.ones(1, 6, 8)])


def test_area_at_the_size_of_the_canvas_is_average_pooling() -> None:
    masks = torch.rand(20, 48, 64, generator=torch.Generator().manual_seed(0)) > 0.5
    cells = masks_to_cells(masks, Placement((48, 64), (48, 64), 0.0, 0.0, 64.0, 48.0), 16)
    torch.testing.assert_close(cells, F.avg_pool2d(masks.float(), 16))
    touched = masks_to_cells(masks, Placement((48, 64), (48, 64), 0.0, 0.0, 64.0, 48.0), 16, policy="any")
    assert torch.equal(touched, F.max_pool2d(masks.float(), 16))


@pytest.mark.parametrize(
    "placement",
    [
        Placement((7, 9), (32, 32), 0.0, 0.0, 32.0, 25.0),
        Placement((7, 9), (32, 32), 0.0, 3.5, 32.0, 25.0),
        Placement((9, 7), (24, 24), -4.0, -7.3, 32.0, 40.6),
        Placement((9, 7), (30, 21), 0.0, 0.0, 21.0, 30.0),
    ],
)
def test_area_equals_painting_every_pixel(placement: Placement) -> None:
    masks = torch.rand(3, *placement.original, generator=torch.Generator().manual_seed(1)) > 0.5
    cells = masks_to_cells(masks, placement, 8)
    expected = torch.stack([area_by_loop(mask, placement, 8) for mask in masks]).float()
    torch.testing.assert_close(cells, expected, rtol=0, atol=1e-6)
    assert torch.equal(masks_to_cells(masks, placement, 8, policy="any"), (expected > 1e-9).float())


def test_edges_that_coincide_do_not_touch_the_next_cell() -> None:
    for pixels in range(1, 60):
        placement = Placement((pixels, pixels), (7 * pixels, 7 * pixels), 0.0, 0.0, 7.0 * pixels, 7.0 * pixels)
        masks = torch.eye(pixels, dtype=torch.bool)[None]
        assert torch.equal(masks_to_cells(masks, placement, 7, policy="any"), masks.float())


@pytest.mark.parametrize(
    ("mask", "plain", "antialiased"),
    [
        (square(40, 40), 16, 40),
        (square(12, 40), 1, 13),
        (disc(30, 140), 32, 60),
        (square(400, 40), 1600, 1768),
    ],
)
def test_official_counts(mask: Tensor, plain: int, antialiased: int) -> None:
    """Cells of CLIPSelf's evaluation masks, as counted with torchvision before and after 0.17."""
    placement = longest_pad_corner(480, 640, 1024)
    assert masks_to_cells(mask, placement, 16, policy="official").sum() == plain
    assert masks_to_cells(mask, placement, 16, policy="official-antialias").sum() == antialiased


def test_official_leaves_the_pad_empty() -> None:
    cells = masks_to_cells(torch.ones(1, 480, 640, dtype=torch.bool), longest_pad_corner(480, 640, 1024), 16,
                           policy="official")  # fmt: skip
    assert cells[0, :48].all()
    assert not cells[0, 48:].any()


def test_official_needs_the_official_placement() -> None:
    with pytest.raises(InputError, match="use policy 'area'"):
        masks_to_cells(torch.ones(1, 48, 64, dtype=torch.bool), Placement((48, 64), (64, 64), 0.0, 8.0, 64.0, 48.0), 16,
                       policy="official")  # fmt: skip
    with pytest.raises(InputError, match="aspect ratio"):
        masks_to_cells(torch.ones(1, 48, 64, dtype=torch.bool), Placement((48, 64), (64, 64), 0.0, 0.0, 64.0, 64.0), 16,
                       policy="official")  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=60, deadline=None)
@given(size=st.tuples(st.integers(1, 90), st.integers(1, 90)), spot=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)))
def test_a_single_pixel_is_never_lost(policy: str, size: tuple[int, int], spot: tuple[float, float]) -> None:
    masks = torch.zeros(2, *size, dtype=torch.bool)
    masks[1, int(spot[0] * size[0]), int(spot[1] * size[1])] = True
    cells = masks_to_cells(masks, longest_pad_corner(*size, 48), 16, policy=policy)
    assert cells.shape == (2, 3, 3)
    assert not cells[0].any()
    assert cells[1].sum() > 0


@pytest.mark.parametrize("policy", ["area", "any"])
def test_a_mask_cropped_away_takes_the_nearest_cell(policy: str) -> None:
    masks = torch.zeros(2, 20, 60, dtype=torch.bool)
    masks[0, 5, 2] = masks[1, 19, 58] = True
    cells = masks_to_cells(masks, Placement((20, 60), (20, 20), -20.0, 0.0, 60.0, 20.0), 10, policy=policy)
    assert cells.tolist() == [[[1, 0], [0, 0]], [[0, 0], [0, 1]]]


@pytest.mark.parametrize("policy", POLICIES)
def test_no_masks(policy: str) -> None:
    none = torch.zeros(0, 0, 0, dtype=torch.bool)
    assert masks_to_cells(none, longest_pad_corner(30, 40, 50), 16, policy=policy).shape == (0, 4, 4)


def test_wrong_input_is_named() -> None:
    placement = longest_pad_corner(30, 40, 48)
    with pytest.raises(InputError, match=r"'aera'.*Did you mean 'area'"):
        masks_to_cells(torch.ones(1, 30, 40, dtype=torch.bool), placement, 16, policy="aera")
    with pytest.raises(InputError, match=r"\(40, 30\) on an image of \(30, 40\)"):
        masks_to_cells(torch.ones(1, 40, 30, dtype=torch.bool), placement, 16)
