from __future__ import annotations

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.modified_resnet import AttentionPool2d
from torch import Tensor

from closeup.errors import InputError
from closeup.models.attention_pool import pool_every_query, pool_no_query, pool_regions, pool_tokens
from closeup.models.pos_embed import crop_position_embedding, resize_position_embedding
from closeup.models.position_policies import position_policy
from goldens import Golden, assert_close, cases


def random_pool(width: int = 48, heads: int = 6, dim: int = 20, side: int = 3, seed: int = 0) -> AttentionPool2d:
    torch.manual_seed(seed)
    pool = AttentionPool2d(side, width, heads, dim)
    for projection in (pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj):
        torch.nn.init.normal_(projection.weight, std=2 * width**-0.5)
        torch.nn.init.normal_(projection.bias)
    return pool.eval()


def torch_attention(pool: AttentionPool2d, tokens: Tensor) -> Tensor:
    """Every query's output, by torch's own attention."""
    x = tokens.transpose(0, 1)
    out, _ = F.multi_head_attention_forward(
        x,
        x,
        x,
        x.shape[2],
        pool.num_heads,
        None,
        torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
        None,
        None,
        False,
        0.0,
        pool.c_proj.weight,
        pool.c_proj.bias,
        training=False,
        need_weights=False,
        use_separate_proj_weight=True,
        q_proj_weight=pool.q_proj.weight,
        k_proj_weight=pool.k_proj.weight,
        v_proj_weight=pool.v_proj.weight,
    )
    return out.transpose(0, 1)


@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(1, 5), cols=st.integers(1, 5), heads=st.sampled_from([1, 2, 6]), regions=st.integers(0, 3),
)  # fmt: skip
def test_absorbed_query_equals_every_query_equals_torch(rows: int, cols: int, heads: int, regions: int) -> None:
    pool = random_pool(heads=heads)
    features = torch.randn(regions, 48, rows, cols)
    positions = torch.randn(1 + rows * cols, 48)
    with torch.no_grad():
        pooled, dense = pool_every_query(pool, features, positions)
        single = pool_regions(pool, features, positions)
        reference = torch_attention(pool, pool_tokens(features, positions))
    assert single.shape == (regions, 20)
    if regions:
        assert_close(single, pooled, 1e-5)
        assert_close(pooled, reference[:, 0], 1e-5)
        assert_close(dense.flatten(2).transpose(1, 2), reference[:, 1:], 1e-5)


def test_pools_equal_open_clip_at_the_native_grid() -> None:
    pool = random_pool()
    features = torch.randn(4, 48, 3, 3)
    with torch.no_grad():
        expected = pool(features)
        assert_close(pool_regions(pool, features, pool.positional_embedding), expected, 1e-5)
        assert_close(pool_every_query(pool, features, pool.positional_embedding)[0], expected, 1e-5)


def test_absorbed_query_has_the_same_gradients() -> None:
    pool = random_pool().double()
    features = torch.randn(3, 48, 3, 3, dtype=torch.float64, requires_grad=True)
    weights = [features, *(p for name, p in pool.named_parameters() if name != "k_proj.bias")]
    target = torch.randn(3, 20, dtype=torch.float64)
    single = torch.autograd.grad((pool_regions(pool, features, pool.positional_embedding) * target).sum(), weights)
    every = torch.autograd.grad((pool(features) * target).sum(), weights)
    for ours, theirs in zip(single, every, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_no_query_is_two_linear_maps_at_every_cell() -> None:
    pool = random_pool()
    features = torch.randn(2, 48, 3, 4)
    with torch.no_grad():
        dense = pool_no_query(pool, features)
        cell = pool.c_proj(pool.v_proj(features[1, :, 2, 1]))
    torch.testing.assert_close(dense[1, :, 2, 1], cell)


def test_single_cell_softmax_is_the_value_path() -> None:
    pool = random_pool()
    features = torch.randn(2, 48, 1, 1)
    nowhere = torch.zeros(2, 48)
    with torch.no_grad():
        assert_close(pool_every_query(pool, features, nowhere)[1], pool_no_query(pool, features), 1e-5)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_resize_keeps_prefix_and_equals_torch(mode: Literal["bicubic", "bilinear"], prefix: int) -> None:
    embedding = torch.randn(prefix + 12, 8)
    resized = resize_position_embedding(embedding, (5, 2), prefix=prefix, mode=mode, native=(3, 4))
    planes = embedding[prefix:].reshape(3, 4, 8).permute(2, 0, 1)[None]
    expected = F.interpolate(planes, (5, 2), mode=mode, align_corners=False)[0].permute(1, 2, 0).reshape(10, 8)
    torch.testing.assert_close(resized[prefix:], expected)
    assert torch.equal(resized[:prefix], embedding[:prefix])


def test_resize_at_its_own_grid_is_the_embedding_itself() -> None:
    embedding = torch.nn.Parameter(torch.randn(10, 8))
    assert resize_position_embedding(embedding, (3, 3)) is embedding


def test_resize_keeps_half_precision_and_passes_gradients() -> None:
    embedding = torch.randn(10, 8, dtype=torch.bfloat16, requires_grad=True)
    resized = resize_position_embedding(embedding, (4, 5))
    assert resized.dtype == torch.bfloat16
    torch.autograd.backward(resized.sum())
    assert embedding.grad is not None
    assert embedding.grad.count_nonzero() > 0


@pytest.mark.parametrize(("rows", "prefix", "native"), [(11, 1, None), (1, 1, None), (10, 1, (2, 4)), (10, 0, None)])
def test_rows_that_form_no_grid_are_refused(rows: int, prefix: int, native: tuple[int, int] | None) -> None:
    with pytest.raises(InputError, match=f"{rows} rows"):
        resize_position_embedding(torch.randn(rows, 8), (4, 4), prefix=prefix, native=native)


def test_crop_takes_the_corner_and_refuses_what_is_too_large() -> None:
    embedding = torch.randn(10, 8)
    cut = crop_position_embedding(embedding, (2, 3))
    assert torch.equal(cut, embedding[[0, 1, 2, 3, 4, 5, 6]])
    with pytest.raises(InputError, match="4 x 2"):
        crop_position_embedding(embedding, (4, 2))


def test_policies_need_their_grid() -> None:
    with pytest.raises(InputError, match="resize-crop"):
        position_policy("resize-crap")
    with pytest.raises(InputError, match="needs grid"):
        position_policy("resize-twice")
    with pytest.raises(InputError, match="takes no grid"):
        position_policy("resize", (3, 3))


def test_resizing_twice_is_not_resizing_once() -> None:
    embedding = torch.randn(50, 8)
    twice = position_policy("resize-twice", (16, 16))(embedding, (5, 8))
    once = position_policy("resize")(embedding, (5, 8))
    assert twice.shape == once.shape == (41, 8)
    assert not torch.allclose(twice, once, atol=1e-2)
    assert torch.equal(twice[0], embedding[0])


@pytest.mark.parametrize("golden", cases("denseclip_detection_aux"))
def test_detection_pool_crops_the_grid(golden: Golden) -> None:
    options = golden.config["attn"]
    pool = AttentionPool2d(**options)
    pool.load_state_dict(golden.weights())
    features, side = golden["in/attn_x"], options["spacial_dim"]
    crop = position_policy("resize-crop", (side, side))
    with torch.no_grad():
        pooled, dense = pool_every_query(
            pool, features, crop(pool.positional_embedding, (features.shape[2], features.shape[3]))
        )
    assert_close(pooled, golden["out/attn_global"])
    assert_close(dense, golden["out/attn_map"])
