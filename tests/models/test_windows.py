from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise, product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from closeup.errors import InputError
from closeup.models.clip import Clip
from closeup.models.routes import AttentionRoute, Block, Grid, Route, get_route
from closeup.models.token_tower import TokenTower
from closeup.models.windows import WindowedBlock, window_grid
from goldens import assert_close
from tiny_clips import PE_CORE, as_clip, eva_clip, eva_config, eva_model, vit_clip
from tiny_towers import fastvit_clip, images, resnet_clip, timm_clip, timm_vit_clip

Make = Callable[[], Clip]


def timm_vit(**options: Any) -> Clip:  # noqa: ANN401 - timm's own options
    return as_clip(timm_vit_clip(patch_size=8, img_size=32, **options), {"embed_dim": 32})


TOWERS: dict[str, Make] = {
    "vit": vit_clip,
    "eva02": eva_clip,
    "perception encoder": lambda: as_clip(eva_model(**PE_CORE), eva_config()),
    "eva with registers": lambda: as_clip(eva_model(num_reg_tokens=2, no_embed_class=True), eva_config()),
    "residual post-norm": lambda: as_clip(
        eva_model(qkv_fused=True, use_post_norm=True, use_rot_pos_emb=False), eva_config()
    ),
    "siglip": timm_vit,
    "timm vit with registers": lambda: timm_vit(reg_tokens=2, class_token=True, global_pool="token", qk_norm=True),
}
EVERY_TOWER = pytest.mark.parametrize("make", TOWERS.values(), ids=TOWERS)


def cuts(length: int, window: int) -> list[slice]:
    edges = [*range(0, length, window), length]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def cells_of_windows(grid: Grid, window: int) -> list[Tensor]:
    cells = torch.arange(grid[0] * grid[1]).view(grid)
    return [cells[rows, cols].flatten() for rows, cols in product(cuts(grid[0], window), cuts(grid[1], window))]


class OneByOne(AttentionRoute):
    """Attention in windows as a loop, every window cut out of the queries, keys and values of the whole map."""

    def __init__(self, window: int) -> None:
        self.window = window

    def __call__(self, block: Block, x: Tensor) -> Tensor:
        queries, keys, values = block.queries_keys_values(x)
        prefix = torch.arange(block.prefix)
        attended, copies = torch.zeros_like(x), torch.zeros_like(x[:, : block.prefix])
        for cells in cells_of_windows(block.grid, self.window):
            chosen = torch.cat([prefix, block.prefix + cells])
            found = block.attend(*(heads[:, :, chosen] for heads in (queries, keys, values)))
            attended[:, chosen[block.prefix :]] = found[:, block.prefix :]
            copies += found[:, : block.prefix] * len(cells)
        attended[:, : block.prefix] = copies / (x.shape[1] - block.prefix)
        y = x + block.project(attended)
        return y + block.feed_forward(y)


def looped(clip: Clip, pictures: Tensor, window: int, route: str) -> Tensor:
    tower = clip.tower
    assert isinstance(tower, TokenTower)
    grid, tokens = tower.grid(pictures), tower.embed(pictures)
    for index in range(tower.depth - 1):
        tokens = OneByOne(window)(tower.block(index, grid), tokens)
    return routed(tower, tokens, grid, OneByOne(window) if route == "attention" else route)


def routed(tower: TokenTower, tokens: Tensor, grid: Grid, route: str | Route = "value") -> Tensor:
    tokens = get_route(route)(tower.last_block(grid), tokens)
    maps: Tensor = tower.project(tokens[:, tower.prefix :]).transpose(1, 2).unflatten(2, grid)
    return maps


@EVERY_TOWER
@pytest.mark.parametrize("route", ["value", "attention"])
@torch.no_grad()
def test_windows_are_a_loop_over_windows(make: Make, route: str) -> None:
    clip = make()
    for (height, width), window in [((64, 64), 4), ((80, 48), 4), ((40, 72), 3), ((24, 64), 5), ((16, 24), 1)]:
        pictures = images(height, width)
        maps = clip.encode_dense(pictures, route=route, window=window, normalize=False)
        assert_close(maps, looped(clip, pictures, window, route), 1e-5)


@EVERY_TOWER
@torch.no_grad()
def test_one_window_is_global_attention(make: Make) -> None:
    clip, pictures = make(), images(40, 56)
    for route in clip.tower.routes:
        everywhere = clip.encode_dense(pictures, route=route, normalize=False)
        for window in (7, 50):
            inside = clip.encode_dense(pictures, route=route, window=window, normalize=False)
            assert_close(inside, everywhere, 1e-6)
        assert not torch.allclose(clip.encode_dense(pictures, route=route, window=4, normalize=False), everywhere)


@EVERY_TOWER
@torch.no_grad()
def test_the_native_window_is_the_grid_of_training(make: Make) -> None:
    clip, pictures = make(), images(72, 64)
    assert torch.equal(clip.encode_dense(pictures, window="native"), clip.encode_dense(pictures, window=4))


@torch.no_grad()
def test_a_native_grid_need_not_be_square() -> None:
    clip = as_clip(eva_model(img_size=(24, 40)), eva_config())
    native = images(24, 40)
    assert_close(clip.encode_dense(native, window="native"), clip.encode_dense(native), 1e-6)
    tower, pictures = clip.tower, images(48, 80)
    assert isinstance(tower, TokenTower)
    tokens = tower.embed(pictures)
    for index in range(2):
        tokens = AttentionRoute()(WindowedBlock(tower.block(index, (6, 10)), (3, 5)), tokens)
    assert_close(clip.encode_dense(pictures, window="native", normalize=False), routed(tower, tokens, (6, 10)), 1e-6)


@torch.no_grad()
def test_a_window_alone_is_the_block_on_its_tokens_alone() -> None:
    """By timm's own block, without a prefix and without rotation."""
    clip = timm_vit()
    tower: Any = clip.tower
    grid, tokens = (6, 5), tower.embed(images(48, 40))
    whole = AttentionRoute()(WindowedBlock(tower.block(0, grid), (4, 4)), tokens)
    for cells in cells_of_windows(grid, 4):
        assert_close(whole[:, cells], tower.trunk.blocks[0](tokens[:, cells]), 1e-5)


@torch.no_grad()
def test_positions_are_those_of_the_whole_map() -> None:
    """A window cut out and turned as a map of its own would turn otherwise."""
    clip = eva_clip()
    tower: Any = clip.tower
    grid, tokens = (8, 8), tower.embed(images(64, 64))
    whole = AttentionRoute()(WindowedBlock(tower.block(0, grid), (4, 4)), tokens)
    rotation = tower.rotation(grid)
    for cells in cells_of_windows(grid, 4):
        chosen = torch.cat([torch.zeros(1, dtype=torch.long), 1 + cells])
        alone = tower.trunk.blocks[0](tokens[:, chosen], rope=rotation[cells])
        assert_close(whole[:, chosen[1:]], alone[:, 1:], 1e-5)
        own = tower.trunk.blocks[0](tokens[:, chosen], rope=tower.rotation((4, 4)))
        assert not torch.allclose(own[:, 1:], alone[:, 1:], atol=1e-2)


def reached(block: Callable[[Tensor], Tensor], tokens: Tensor, seen: Tensor) -> Tensor:
    """Return which of a block's input tokens the output tokens ``seen`` depend on."""
    tokens = tokens.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(block(tokens)[:, seen].square().sum(), tokens)
    return gradient[0].abs().sum(dim=1) > 0


@EVERY_TOWER
def test_a_window_sees_itself_and_the_prefix_and_nothing_else(make: Make) -> None:
    tower = make().tower
    assert isinstance(tower, TokenTower)
    grid = (7, 6)
    tokens = tower.embed(images(56, 48, count=1))
    inner = WindowedBlock(tower.block(0, grid), (4, 4))
    for cells in cells_of_windows(grid, 4):
        inside = torch.cat([torch.arange(tower.prefix), tower.prefix + cells])
        seen = reached(lambda x: AttentionRoute()(inner, x), tokens, tower.prefix + cells)
        assert seen.nonzero()[:, 0].tolist() == inside.tolist()
    if tower.prefix:
        everything = reached(lambda x: AttentionRoute()(inner, x), tokens, torch.arange(1))
        assert everything.all()


@torch.no_grad()
def test_without_a_class_token_a_window_never_knows_of_another() -> None:
    clip, pictures = timm_vit(), images(56, 48)
    others = pictures.clone()
    others[:, :, 32:] += 1
    others[:, :, :, 32:] += 1
    for route in ("value", "attention"):
        maps, changed = (clip.encode_dense(each, route=route, window=4) for each in (pictures, others))
        torch.testing.assert_close(changed[:, :, :4, :4], maps[:, :, :4, :4], atol=1e-6, rtol=0)
        assert not torch.allclose(changed[:, :, 4:], maps[:, :, 4:], atol=1e-2)


@EVERY_TOWER
@torch.no_grad()
def test_images_of_a_batch_do_not_meet(make: Make) -> None:
    clip, pictures, order = make(), images(48, 72, count=3), torch.tensor([2, 0, 1])
    maps = clip.encode_dense(pictures, route="attention", window=4)
    assert_close(clip.encode_dense(pictures[order], route="attention", window=4), maps[order], 1e-5)
    assert_close(clip.encode_dense(pictures[1:2], route="attention", window=4), maps[1:2], 1e-5)


@EVERY_TOWER
def test_gradients_are_those_of_the_loop(make: Make) -> None:
    clip, pictures = make(), images(56, 48, count=1)
    parameters = [each for each in clip.tower.visual.parameters() if each.requires_grad]

    def gradients(maps: Tensor) -> Tensor:
        weights = torch.randn(maps.shape, generator=torch.Generator().manual_seed(3))
        output = (maps * weights).sum()
        found: Sequence[Tensor | None] = torch.autograd.grad(output, parameters, allow_unused=True)
        return torch.cat([gradient.flatten() for gradient in found if gradient is not None])

    expected = gradients(looped(clip, pictures, 3, "value"))
    assert float((expected != 0).float().mean()) > 0.5
    assert_close(gradients(clip.encode_dense(pictures, window=3, normalize=False)), expected, 1e-5)


def test_checkpointed_blocks_have_the_same_gradients() -> None:
    clip = vit_clip()
    found = []
    for switched in (False, True):
        clip.model.visual.set_grad_checkpointing(switched)
        clip.model.zero_grad()
        clip.encode_dense(images(40, 40), window=2).square().sum().sqrt().backward()
        found.append(clip.model.visual.transformer.resblocks[0].attn.in_proj_weight.grad.clone())
    torch.testing.assert_close(*found)


class Neighbours:
    """A route of a user's own, with a bias over the whole map."""

    name = "neighbours"

    def __call__(self, block: Block, x: Tensor) -> Tensor:
        _, keys, values = block.queries_keys_values(x)
        return block.project(block.attend(keys, keys, values, self.bias(block)))

    def bias(self, block: Block) -> Tensor:
        count = block.prefix + block.grid[0] * block.grid[1]
        return torch.randn(count, count, generator=torch.Generator().manual_seed(5))


@EVERY_TOWER
@torch.no_grad()
def test_a_bias_is_cut_into_windows_with_the_map(make: Make) -> None:
    tower = make().tower
    assert isinstance(tower, TokenTower)
    grid, tokens = (5, 6), tower.tokens(images(40, 48))
    block = tower.last_block(grid)
    queries, keys, values = block.queries_keys_values(tokens)
    bias = Neighbours().bias(block)
    apart = torch.full(bias.shape, -torch.inf)
    for cells in cells_of_windows(grid, 3):
        inside = torch.cat([torch.arange(tower.prefix), tower.prefix + cells])
        apart[inside[:, None], inside] = bias[inside[:, None], inside]
    expected = block.attend(queries, keys, values, apart)
    windowed = WindowedBlock(block, (3, 3)).attend(queries, keys, values, bias)
    assert_close(windowed[:, tower.prefix :], expected[:, tower.prefix :], 1e-5)
    assert Neighbours()(WindowedBlock(block, (3, 3)), tokens).isfinite().all()


@torch.no_grad()
def test_half_precision_stays_near() -> None:
    exact = vit_clip()
    half = as_clip(exact.model, exact.config["model_cfg"], precision="bf16")
    pictures = images(56, 48)
    maps, rounded = (clip.encode_dense(pictures, route="attention", window=4) for clip in (exact, half))
    assert rounded.dtype == torch.float32
    assert float(F.cosine_similarity(maps, rounded, dim=1).min()) > 0.99


CONVOLUTIONS = {
    "resnet": resnet_clip,
    "convnext": lambda: timm_clip("test_convnext", image_size=64),
    "fastvit": fastvit_clip,
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_tower_of_convolutions_has_no_windows(name: str) -> None:
    clip = as_clip(CONVOLUTIONS[name]())
    for window in (4, "native"):
        with pytest.raises(InputError, match=r"no meaning for a .* tower: it is made of convolutions"):
            clip.encode_dense(images(64, 64), window=window)


@pytest.mark.parametrize("window", [0, -3, 2.5, True, "all"])
def test_what_is_no_window_is_named(window: Any) -> None:  # noqa: ANN401
    with pytest.raises(InputError, match="Give the number of cells along a side, at least 1, or 'native'"):
        window_grid(window, (4, 4))


def test_a_window_is_checked_before_anything_is_computed() -> None:
    tower = vit_clip().tower
    assert tower.native_grid == (4, 4)
    for good in (None, "native", 1, 100):
        tower.check_window(good)
    with pytest.raises(InputError, match="The window is 0"):
        tower.check_window(0)
