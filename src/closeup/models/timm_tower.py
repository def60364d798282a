"""What timm's two kinds of transformer have in common inside open_clip: stem, positions, pooling, head."""

from __future__ import annotations

from typing import Any

import torch
from open_clip.timm_model import TimmModel
from torch import Tensor

from closeup._types import Embeddings, Images
from closeup.models.latent_pool import pool_each_token
from closeup.models.pos_embed import resize_position_embedding
from closeup.models.routes import Grid, Tokens
from closeup.models.token_tower import JointTokens, Patches, TokenTower


class TimmTower(TokenTower):
    """A timm transformer at any size, pooled by its class token, by the mean, or by a learned query.

    The last block is routed as in every ViT. What comes after it is read one token at a time: norms and
    projection as they are, and a learned-query pool (SigLIP, Perception Encoder) by its value path
    (``latent_pool``), so that patches end where the pooled embedding does. ``pooled`` is the model's own pool.

    The position embedding is resized bicubically without antialias, as CLIPSelf does it (``wusize/CLIPSelf``
    ``src/open_clip/eva_clip/eva_vit_model.py``); timm's own resizing antialiases, which is another function.
    Patch dropout is left out: a map needs every patch.
    """

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
        self.prefix = int(trunk.num_prefix_tokens)
        if trunk.cls_token is None:
            self.routes = ("value", "attention")

    @property
    def pools_class_token(self) -> bool:
        """Whether the image embedding is the class token's, and not a mean's or a learned query's."""
        return self.trunk.global_pool == "token" and self.trunk.cls_token is not None

    @property
    def checkpointing(self) -> bool:
        """Whether timm's gradient checkpointing is switched on for this tower."""
        return bool(self.trunk.grad_checkpointing)

    def patches(self, images: Images) -> Patches:
        """Return the patches as timm's stem makes them, in the dtype of the weights."""
        embed = self.trunk.patch_embed
        # Called part by part: PatchEmbed as a whole refuses every size but its own.
        planes = embed.proj(embed.backbone(images) if hasattr(embed, "backbone") else images)
        patches: Tensor = planes.flatten(2).transpose(1, 2)
        patches = embed.norm(patches) if hasattr(embed, "norm") else patches
        # Under autocast the patches come in half precision; the residual stream stays in the weights' own.
        return patches.to(next(self.trunk.parameters()).dtype)

    def assemble(self, patches: Patches, grid: Grid) -> Tokens:
        """Return prefix tokens and patches with their positions."""
        trunk = self.trunk
        prefix = [token for token in (trunk.cls_token, trunk.reg_token) if token is not None]
        tokens = torch.cat([*(token.expand(len(patches), -1, -1) for token in prefix), patches], dim=1)
        stem: Tensor = trunk.norm_pre(trunk.pos_drop(self._placed(tokens, grid)))
        return stem

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

    def _placed(self, tokens: Tokens, grid: Grid) -> Tokens:
        embedding = self.trunk.pos_embed
        if embedding is None:
            return tokens
        placed = 0 if self.trunk.no_embed_class else self.prefix
        native = tuple(self.trunk.patch_embed.grid_size)
        positions = resize_position_embedding(embedding[0], grid, prefix=placed, native=native)
        if placed == self.prefix:
            return tokens + positions
        return torch.cat([tokens[:, : self.prefix], tokens[:, self.prefix :] + positions], dim=1)
