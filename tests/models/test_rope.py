from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import RotaryEmbeddingCat

from closeup.models.rope import axial_rotation
from goldens import Golden, assert_close, cases

SIDES = st.tuples(st.integers(1, 20), st.integers(1, 20))


@settings(deadline=None, max_examples=40)
@given(SIDES, st.one_of(st.none(), SIDES), st.sampled_from([0.0, 1.0]), st.booleans())
def test_tables_are_timms(
    grid: tuple[int, int], reference: tuple[int, int] | None, offset: float, columns_first: bool
) -> None:
    rope = RotaryEmbeddingCat(
        16,
        in_pixels=False,
        feat_shape=grid,
        ref_feat_shape=reference,
        grid_offset=offset,
        grid_indexing="xy" if columns_first else "ij",
    )
    if columns_first and reference is not None and reference[0] != reference[1]:
        return  # timm reads the reference as (columns, rows) then; every model has a square one
    ours = axial_rotation(rope.bands, grid, reference=reference, offset=offset, columns_first=columns_first)
    torch.testing.assert_close(ours, rope.get_embed(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("golden", cases("clipself_eva"))
def test_tables_are_the_official_ones(golden: Golden) -> None:
    cosine, sine = golden["w/visual.rope.freqs_cos"], golden["w/visual.rope.freqs_sin"]
    side, channels = round(len(cosine) ** 0.5), cosine.shape[1]
    bands = 1 / 10000 ** (torch.arange(0, channels // 2, 2) / (channels // 2))
    ours = axial_rotation(bands, (side, side), reference=(16, 16))
    assert_close(ours, torch.cat([sine, cosine], dim=1), 1e-6)
