"""timm's Eva inside open_clip: EVA01, EVA02 (rotary positions, sub-norms, SwiGLU) and Perception Encoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip.timm_model import TimmModel
from timm.layers import RotaryEmbeddingCat, apply_rot_embed_cat
from timm.models.eva import Eva, EvaBlock, EvaBlockPostNorm
from torch import Tensor, nn

from closeup.errors import ModelError
from closeup.models.rope import axial_rotation
from closeup.models.routes import Block, Grid, Heads, Tokens
from closeup.models.timm_tower import TimmTower

Rotation = Float[Tensor, "patches channels"]

SIZES_KEPT = 64
"""Grids whose rotary tables are kept; a table of 64 x 64 patches takes 2 MB."""


class EvaTransformerBlock(Block):
    """One block of timm's Eva, taken apart; with residual post-norm (EVA02-E) where the model has it."""

    def __init__(self, block: EvaBlock | EvaBlockPostNorm, prefix: int, grid: Grid, rotation: Rotation | None) -> None:
        self.block = block
        self.attention = block.attn
        self.prefix = prefix
        self.grid = grid
        self.rotation = rotation
        self.post_norm = isinstance(block, EvaBlockPostNorm)

    def queries_keys_values(self, x: Tokens) -> tuple[Heads, Heads, Heads]:
        """Return q, k, v of the normalised input; patches of q and k rotated, prefix tokens not."""
        attention = self.attention
        x = self._normalised(x)
        if attention.qkv is None:
            queries, keys = self._split(attention.q_proj(x)), self._split(attention.k_proj(x))
        else:
            queries, keys = (self._split(self._fused(x, part)) for part in (0, 1))
        queries, keys = attention.q_norm(queries), attention.k_norm(keys)
        return self._rotated(queries), self._rotated(keys), self._split(self._values(x))

    def values(self, x: Tokens) -> Tokens:
        """Return ``W_v norm_1(x) + b_v``: the rotation turns only q and k, so there is none here."""
        return self._values(self._normalised(x))

    def project(self, joined: Tokens) -> Tokens:
        """Apply the inner norm (sub-LN), the output projection, and the layer scale or post-norm."""
        projected = self.attention.proj_drop(self.attention.proj(self.attention.norm(joined)))
        return self._branch(projected, self.block.norm1, "gamma_1", self.block.drop_path1)

    def feed_forward(self, x: Tokens) -> Tokens:
        """Return the SwiGLU or MLP branch with its norm, and its layer scale or post-norm."""
        hidden = self.block.mlp(x if self.post_norm else self.block.norm2(x))
        return self._branch(hidden, self.block.norm2, "gamma_2", self.block.drop_path2)

    def _branch(self, output: Tokens, norm: nn.Module, gamma: str, drop_path: nn.Module) -> Tokens:
        scale = getattr(self.block, gamma, None)
        if self.post_norm:
            output = norm(output)
        kept: Tensor = drop_path(output if scale is None else scale * output)
        return kept

    def _normalised(self, x: Tokens) -> Tokens:
        normalised: Tensor = x if self.post_norm else self.block.norm1(x)
        return normalised

    def _values(self, normalised: Tokens) -> Tokens:
        if self.attention.qkv is not None:
            return self._fused(normalised, 2)
        values: Tensor = self.attention.v_proj(normalised)
        return values

    def _fused(self, normalised: Tokens, part: int) -> Tokens:
        """Return q, k or v (``part`` 0, 1, 2) of a fused projection, computing no other."""
        attention = self.attention
        rows = slice(part * attention.qkv.out_features // 3, (part + 1) * attention.qkv.out_features // 3)
        bias = attention.qkv.bias
        if getattr(attention, "q_bias", None) is not None:
            bias = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
        return F.linear(normalised, attention.qkv.weight[rows], None if bias is None else bias[rows])

    def _split(self, joined: Tokens) -> Heads:
        heads: Heads = joined.unflatten(-1, (self.attention.num_heads, -1)).transpose(1, 2)
        return heads

    def _rotated(self, heads: Heads) -> Heads:
        if self.rotation is None:
            return heads
        patches = apply_rot_embed_cat(heads[:, :, self.prefix :], self.rotation)
        return torch.cat([heads[:, :, : self.prefix], patches.to(heads.dtype)], dim=2)


class EvaTower(TimmTower):
    """timm's Eva as open_clip's image tower, at any size and shape.

    Rotary positions are rescaled to the span of pre-training on each axis, so non-square images work, and any
    number of sizes; the official code (``wusize/CLIPSelf`` ``src/open_clip/eva_clip/rope.py``) takes squares only.
    """

    family = "EVA"

    def __init__(self, visual: TimmModel, *, dim: int) -> None:
        super().__init__(visual, dim=dim)
        self._rotations: dict[tuple[Grid, torch.device], Tensor] = {}

    @classmethod
    def accepts(cls, visual: nn.Module) -> bool:
        """Tell whether ``visual`` is open_clip's TimmModel around timm's Eva."""
        return isinstance(visual, TimmModel) and isinstance(visual.trunk, Eva)

    @classmethod
    def from_visual(cls, visual: nn.Module, dim: int) -> EvaTower:
        """Wrap ``visual``; ModelError for mixed, half-rotated or gated attention, or an unknown pooling."""
        reason = _unreadable(visual)
        if reason is not None:
            raise ModelError(
                f"This EVA tower cannot be read as a dense map: {reason}. Choose an EVA02 or PE-Core model."
            )
        return cls(visual, dim=dim)

    def run_block(self, index: int, tokens: Tokens, grid: Grid) -> Tokens:
        """Return the output of timm's own block."""
        output: Tensor = self.trunk.blocks[index](tokens, rope=self.rotation(grid))
        return output

    def block(self, index: int, grid: Grid) -> EvaTransformerBlock:
        """Return a block taken apart."""
        return EvaTransformerBlock(self.trunk.blocks[index], self.prefix, grid, self.rotation(grid))

    def rotation(self, grid: Grid) -> Rotation | None:
        """Return the rotary tables of a grid, computed once a size; None for a model without them."""
        rope: RotaryEmbeddingCat | None = self.trunk.rope
        if rope is None:
            return None
        key = (grid, rope.bands.device)
        kept = self._rotations.get(key)
        if kept is None:
            if len(self._rotations) >= SIZES_KEPT:
                self._rotations.clear()
            kept = self._rotations[key] = _rotation(rope, grid)
        return kept


@torch.inference_mode(False)  # an inference tensor that is kept would break the next training step
def _rotation(rope: RotaryEmbeddingCat, grid: Grid) -> Rotation:
    return axial_rotation(
        rope.bands,
        grid,
        reference=rope.ref_feat_shape,
        offset=rope.grid_offset,
        columns_first=rope.grid_indexing == "xy",
    )


def _unreadable(visual: TimmModel) -> str | None:
    trunk = visual.trunk
    attention = trunk.blocks[-1].attn
    patch = trunk.patch_embed.patch_size
    problems = {
        f"it pools by {trunk.global_pool!r}": trunk.global_pool not in ("token", "avg", "map"),
        "its rotary positions are not of the plain axial form": trunk.rope is not None
        and (not isinstance(trunk.rope, RotaryEmbeddingCat) or attention.rotate_half),
        "its attention is gated": getattr(attention, "gate", None) is not None,
        "its keys are shared between heads": getattr(attention, "num_kv_groups", 1) != 1,
        f"its patches are not square ({patch[0]} x {patch[1]})": patch[0] != patch[1],
    }
    return next((reason for reason, found in problems.items() if found), None)
