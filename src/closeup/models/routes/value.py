"""The value route: every token sees only itself in the last block (CLIPSelf, and MaskCLIP for ViTs)."""

from __future__ import annotations

from closeup.models.routes.base import Block, Tokens


class ValueRoute:
    """``y = x + W_o W_v ln_1(x)``, then ``y + mlp(ln_2(y))``: residual, value, out-projection and MLP kept.

    Source: CLIPSelf (arXiv 2310.01403), ``wusize/CLIPSelf`` ``src/open_clip/transformer.py`` and
    ``eva_clip/eva_vit_model.py``; the same arithmetic is MaskCLIP's for ViTs (arXiv 2112.01071,
    ``chongzhou96/MaskCLIP`` ``mmseg/models/backbones/vit.py``). Queries and keys are never computed;
    the official code computes the first and slices it away.
    """

    name = "value"

    def __call__(self, block: Block, x: Tokens) -> Tokens:
        """Return the block's output tokens with the attention matrix replaced by the identity."""
        y = x + block.project(block.values(x))
        return y + block.feed_forward(y)
