"""open_clip's own VisionTransformer: OpenAI, LAION, DataComp, MetaCLIP, DFN, CLIPA and others."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from open_clip.transformer import CustomResidualAttentionBlock, ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from closeup._types import Embeddings, Images
from closeup.errors import ModelError
from closeup.models.pos_embed import resize_position_embedding
from closeup.models.routes import Block, Grid, Heads, Tokens
from closeup.models.token_tower import ATTENTION, JointTokens, Patches, TokenTower


class VitBlock(Block):
    """One residual attention block of open_clip's ViT, taken apart."""

    prefix = 1

    def __init__(self, block: ResidualAttentionBlock | CustomResidualAttentionBlock, grid: Grid) -> None:
        self.block = block
        self.attention = block.attn
        self.grid = grid

    def queries_keys_values(self, x: Tokens) -> tuple[Heads, Heads, Heads]:
        """Return q, k, v of ``ln_1(x)``, each head's q and k normalised where the model does so."""
        attention = self.attention
        joined = F.linear(self.block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
        heads = joined.unflatten(-1, (3, attention.num_heads, -1))
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)
        if isinstance(self.block, CustomResidualAttentionBlock):
            queries, keys = attention.ln_q(queries), attention.ln_k(keys)
        return queries, keys, values

    def values(self, x: Tokens) -> Tokens:
        """Return ``W_v ln_1(x) + b_v``, the last third of the fused projection."""
        width = self.attention.in_proj_weight.shape[1]
        bias = self.attention.in_proj_bias
        weight = self.attention.in_proj_weight[2 * width :]
        return F.linear(self.block.ln_1(x), weight, None if bias is None else bias[2 * width :])

    def project(self, joined: Tokens) -> Tokens:
        """Apply the inner norm (NormFormer models), the output projection and the layer scale."""
        custom = isinstance(self.block, CustomResidualAttentionBlock)
        projected = self.attention.out_proj(self.attention.ln_inner(joined) if custom else joined)
        scaled: Tensor = self.block.ls_1(self.block.ln_attn(projected) if custom else projected)
        return scaled

    def feed_forward(self, x: Tokens) -> Tokens:
        """Return ``ls_2(mlp(ln_2(x)))``."""
        scaled: Tensor = self.block.ls_2(self.block.mlp(self.block.ln_2(x)))
        return scaled


class VitTower(TokenTower):
    """open_clip's VisionTransformer at any size.

    The position embedding is resized bicubically without antialias, the class row kept (CLIPSelf,
    ``wusize/CLIPSelf`` ``src/open_clip/transformer.py``; CAT-Seg and MaskCLIP do the same). Patch
    dropout is left out: a map needs every patch.

    ``positions="bilinear"`` and ``class_embedding="double"`` are DenseCLIP's (``raoyongming/DenseCLIP``
    ``segmentation/denseclip/models.py``): its code adds the class embedding to the class token a second
    time, which changes the patch tokens too. The default counts it once, as CLIP was trained.
    """

    family = "ViT"
    prefix = 1
    visual: VisionTransformer

    def __init__(
        self,
        visual: VisionTransformer,
        *,
        dim: int,
        positions: Literal["bicubic", "bilinear"] = "bicubic",
        class_embedding: Literal["single", "double"] = "single",
    ) -> None:
        super().__init__(
            visual,
            dim=dim,
            patch=visual.patch_size[0],
            depth=len(visual.transformer.resblocks),
            image_size=tuple(visual.image_size),
        )
        self.positions = positions
        self.class_embedding = class_embedding

    @classmethod
    def accepts(cls, visual: nn.Module) -> bool:
        """Tell whether ``visual`` is open_clip's VisionTransformer."""
        return isinstance(visual, VisionTransformer)

    @classmethod
    def from_visual(cls, visual: nn.Module, dim: int) -> VitTower:
        """Wrap ``visual``; ModelError for attentional pooling (CoCa) and other forms without a patch-wise head."""
        reason = _unreadable(visual)
        if reason is not None:
            raise ModelError(f"This ViT cannot be read as a dense map: {reason}. Choose a ViT of the CLIP form.")
        return cls(visual, dim=dim)

    @property
    def pools_class_token(self) -> bool:
        """Whether the image embedding is the class token's, and not the mean of the patches."""
        return bool(self.visual.pool_type == "tok")

    @property
    def checkpointing(self) -> bool:
        """Whether open_clip's gradient checkpointing is switched on for this tower."""
        return bool(self.visual.transformer.grad_checkpointing)

    def patches(self, images: Images) -> Patches:
        """Return the patches as the first convolution makes them; in the dtype of the weights."""
        # Under autocast the patches come in half precision; the residual stream stays in the weights' own.
        planes: Tensor = self.visual.conv1(images).to(self.visual.class_embedding.dtype)
        return planes.flatten(2).transpose(1, 2)

    def assemble(self, patches: Patches, grid: Grid) -> Tokens:
        """Return class token and patches with their positions, after ``ln_pre``."""
        visual = self.visual
        positions = resize_position_embedding(
            visual.positional_embedding, grid, mode=self.positions, native=tuple(visual.grid_size)
        )
        start = visual.class_embedding * (2 if self.class_embedding == "double" else 1)
        tokens = torch.cat([start.expand(len(patches), 1, -1), patches], dim=1)
        stem: Tensor = visual.ln_pre(tokens + positions)
        return stem

    def run_block(self, index: int, tokens: Tokens, grid: Grid) -> Tokens:
        """Return the ordinary output of a block.

        Through its parts, not its ``forward``: without gradients torch's MultiheadAttention leaves
        scaled_dot_product_attention for a path that writes every attention matrix out (at 4,096
        patches on a CPU 1.5 times the time and gigabytes of memory).
        """
        return ATTENTION(self.block(index, grid), tokens)

    def block(self, index: int, grid: Grid) -> VitBlock:
        """Return a block taken apart."""
        return VitBlock(self.visual.transformer.resblocks[index], grid)

    def pool(self, tokens: Tokens) -> Embeddings:
        """Return the class token, or the mean of the patches, in the joint space."""
        visual = self.visual
        if visual.pool_type == "tok":
            return self.project(tokens[:, :1])[:, 0]
        if visual.final_ln_after_pool:
            return self.project(tokens[:, 1:].mean(dim=1, keepdim=True))[:, 0]
        pooled: Tensor = visual.ln_post(tokens[:, 1:]).mean(dim=1) @ visual.proj
        return pooled

    def project(self, tokens: Tokens) -> JointTokens:
        """Return ``ln_post(tokens) @ proj``."""
        projected: Tensor = self.visual.ln_post(tokens) @ self.visual.proj
        return projected


def _unreadable(visual: VisionTransformer) -> str | None:
    attention = visual.transformer.resblocks[-1].attn
    patch = visual.patch_size
    problems = {
        "it pools by attention (as CoCa does)": visual.attn_pool is not None,
        "it has no projection into the joint space": visual.proj is None,
        f"it pools by {visual.pool_type!r}": visual.pool_type not in ("tok", "avg"),
        f"its patches are not square ({patch[0]} x {patch[1]})": patch[0] != patch[1],
        "its attention is a cosine or scales its heads": getattr(attention, "logit_scale", None) is not None
        or getattr(attention, "head_scale", None) is not None,
    }
    return next((reason for reason, found in problems.items() if found), None)
