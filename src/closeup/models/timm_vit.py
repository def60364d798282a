"""timm's VisionTransformer inside open_clip: SigLIP, SigLIP 2, MobileCLIP-B and -L, ViTamin and others."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.timm_model import TimmModel
from timm.layers import Attention
from timm.models.vision_transformer import Block as PreNormBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from closeup._types import Embeddings, Images
from closeup.errors import ModelError
from closeup.models.latent_pool import pool_each_token
from closeup.models.pos_embed import resize_position_embedding
from closeup.models.routes import Heads, Tokens
from closeup.models.token_tower import Grid, JointTokens, TokenTower


class TimmBlock:
    """One pre-norm block of timm's ViT, taken apart."""

    def __init__(self, block: PreNormBlock, prefix: int) -> None:
        self.block = block
        self.attention = block.attn
        self.prefix = prefix

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

    def attend(self, queries: Heads, keys: Heads, values: Heads) -> Tokens:
        """Return scaled dot-product attention, heads joined."""
        return F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)

    def project(self, joined: Tokens) -> Tokens:
        """Apply the inner norm, the output projection, the layer scale and (in training) the dropped path."""
        projected = self.attention.proj_drop(self.attention.proj(self.attention.norm(joined)))
        scaled: Tensor = self.block.drop_path1(self.block.ls1(projected))
        return scaled

    def feed_forward(self, x: Tokens) -> Tokens:
        """Return ``ls2(mlp(norm2(x)))``."""
        scaled: Tensor = self.block.drop_path2(self.block.ls2(self.block.mlp(self.block.norm2(x))))
        return scaled


class TimmVitTower(TokenTower):
    """A timm ViT at any size, pooled by its class token, by the mean, or by a learned query (SigLIP).

    The last block is routed as in every ViT. What comes after it is read one token at a time: norms and
    projection as they are, and a learned-query pool by its value path (``latent_pool``), so that patches
    end where the pooled embedding does. ``pooled`` is the model's own pool.

    The position embedding is resized bicubically without antialias; timm's own resizing has antialias.
    Patch dropout is left out: a map needs every patch.
    """

    family = "timm ViT"
    visual: Any

    def __init__(self, visual: TimmModel, *, dim: int) -> None:
        trunk: Any = visual.trunk
        super().__init__(
            visual,
            dim=dim,
            patch=trunk.patch_embed.feat_ratio(),
            depth=len(trunk.blocks),
            image_size=tuple(trunk.patch_embed.img_size),
        )
        self.trunk = trunk
        self.prefix = trunk.num_prefix_tokens
        if not trunk.has_class_token:
            self.routes = ("value", "attention")

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

    @property
    def checkpointing(self) -> bool:
        """Whether timm's gradient checkpointing is switched on for this tower."""
        return bool(self.trunk.grad_checkpointing)

    def grid(self, images: Images) -> Grid:
        """Return the rows and columns of patches; at the native size the model's own.

        Some models were trained at a size that the patch does not divide (384 with patch 14): there, and only
        there, the pixels beyond the last whole patch are not seen, as in the model itself.
        """
        if tuple(images.shape[-2:]) == self.image_size:
            rows, cols = self.trunk.patch_embed.grid_size
            return rows, cols
        return super().grid(images)

    def embed(self, images: Images) -> Tokens:
        """Return prefix tokens and patches with their positions, in the dtype of the weights."""
        trunk, grid = self.trunk, self.grid(images)
        patches = self._patches(images)
        prefix = [each.expand(len(images), -1, -1) for each in (trunk.cls_token, trunk.reg_token) if each is not None]
        placed = 0 if trunk.no_embed_class else self.prefix
        positions = resize_position_embedding(
            trunk.pos_embed[0], grid, prefix=placed, native=tuple(trunk.patch_embed.grid_size)
        )
        # Under autocast the patches come in half precision; the residual stream stays in the weights' own.
        patches = patches.to(positions.dtype)
        if trunk.no_embed_class:
            tokens = torch.cat([*prefix, patches + positions], dim=1)
        else:
            tokens = torch.cat([*prefix, patches], dim=1) + positions
        stem: Tensor = trunk.norm_pre(trunk.pos_drop(tokens))
        return stem

    def run_block(self, index: int, tokens: Tokens, grid: Grid) -> Tokens:
        """Return the output of timm's own block."""
        output: Tensor = self.trunk.blocks[index](tokens)
        return output

    def last_block(self, grid: Grid) -> TimmBlock:
        """Return the last block taken apart."""
        return TimmBlock(self.trunk.blocks[-1], self.prefix)

    def pool(self, tokens: Tokens) -> Embeddings:
        """Return the model's own pooling of the tokens: class token, mean, or learned query."""
        pooled: Tensor = self.visual.head(self.trunk.forward_head(self.trunk.norm(tokens)))
        return pooled

    def project(self, tokens: Tokens) -> JointTokens:
        """Return each token as the pool and the projection would see it if it were alone."""
        trunk = self.trunk
        tokens = trunk.norm(tokens)
        if trunk.attn_pool is not None:
            tokens = pool_each_token(trunk.attn_pool, tokens)
        projected: Tensor = self.visual.head(trunk.head(trunk.head_drop(trunk.fc_norm(tokens))))
        return projected

    def _patches(self, images: Images) -> Tokens:
        embed = self.trunk.patch_embed
        # Called part by part: PatchEmbed as a whole refuses every size but its own.
        planes = embed.proj(embed.backbone(images) if hasattr(embed, "backbone") else images)
        patches: Tensor = planes.flatten(2).transpose(1, 2)
        return embed.norm(patches) if hasattr(embed, "norm") else patches


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
