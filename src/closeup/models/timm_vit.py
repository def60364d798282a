"""timm's VisionTransformer inside open_clip: SigLIP, SigLIP 2, MobileCLIP-B and -L, ViTamin and others."""

from __future__ import annotations

import torch.nn.functional as F
from open_clip.timm_model import TimmModel
from timm.layers import Attention
from timm.models.vision_transformer import Block as PreNormBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from closeup.errors import ModelError
from closeup.models.routes import Block, Grid, Heads, Tokens
from closeup.models.timm_tower import TimmTower


class TimmBlock(Block):
    """One pre-norm block of timm's ViT, taken apart."""

    def __init__(self, block: PreNormBlock, prefix: int, grid: Grid) -> None:
        self.block = block
        self.attention = block.attn
        self.prefix = prefix
        self.grid = grid

    def queries_keys_values(self, x: Tokens) -> tuple[Heads, Heads, Heads]:
        """Return q, k, v of ``norm1(x)``, q and k normalised where the model does so."""
        attention = self.attention
        joined = attention.qkv(self.block.norm1(x)).unflatten(-1, (3, attention.num_heads, -1))
        queries, keys, values = joined.permute(2, 0, 3, 1, 4)
        return attention.q_norm(queries), attention.k_norm(keys), values

    def values(self, x: Tokens) -> Tokens:
        """Return ``W_v norm1(x) + b_v``, the last third of the fused projection."""
        qkv, start = self.attention.qkv, 2 * self.attention.attn_dim
        return F.linear(self.block.norm1(x), qkv.weight[start:], None if qkv.bias is None else qkv.bias[start:])

    def project(self, joined: Tokens) -> Tokens:
        """Apply the inner norm, the output projection, the layer scale and (in training) the dropped path."""
        projected = self.attention.proj_drop(self.attention.proj(self.attention.norm(joined)))
        scaled: Tensor = self.block.drop_path1(self.block.ls1(projected))
        return scaled

    def feed_forward(self, x: Tokens) -> Tokens:
        """Return ``ls2(mlp(norm2(x)))``."""
        scaled: Tensor = self.block.drop_path2(self.block.ls2(self.block.mlp(self.block.norm2(x))))
        return scaled


class TimmVitTower(TimmTower):
    """timm's VisionTransformer as open_clip's image tower, at any size and shape."""

    family = "timm ViT"

    @classmethod
    def accepts(cls, visual: nn.Module) -> bool:
        """Tell whether ``visual`` is a timm VisionTransformer in open_clip's wrapper."""
        return isinstance(visual, TimmModel) and isinstance(visual.trunk, VisionTransformer)

    @classmethod
    def from_visual(cls, visual: nn.Module, dim: int) -> TimmVitTower:
        """Wrap ``visual``; ModelError for blocks, patches or pools that cannot be read one token at a time."""
        reason = _unreadable(visual)
        if reason is not None:
            raise ModelError(f"This timm ViT cannot be read as a dense map: {reason}. Choose a plain ViT.")
        return cls(visual, dim=dim)

    def run_block(self, index: int, tokens: Tokens, grid: Grid) -> Tokens:
        """Return the output of timm's own block."""
        output: Tensor = self.trunk.blocks[index](tokens)
        return output

    def block(self, index: int, grid: Grid) -> TimmBlock:
        """Return a block taken apart."""
        return TimmBlock(self.trunk.blocks[index], self.prefix, grid)


def _unreadable(visual: TimmModel) -> str | None:
    trunk = visual.trunk
    ratio = trunk.patch_embed.feat_ratio(as_scalar=False)
    last = trunk.blocks[-1]
    problems = {
        f"its blocks are {type(last).__name__}": type(last) is not PreNormBlock,
        "its attention is not timm's plain one": type(getattr(last, "attn", None)) is not Attention
        or last.attn.gate is not None,
        "it has no learned positions": trunk.pos_embed is None,
        f"it pools by {trunk.global_pool!r}": trunk.global_pool not in ("token", "avg", "max", "avgmax", "map"),
        "open_clip adds a pool of its own": hasattr(visual.head, "pool"),
        f"its patches are not square ({ratio[0]} x {ratio[1]})": ratio[0] != ratio[1],
    }
    return next((reason for reason, found in problems.items() if found), None)
