"""The value route with the class token as every token's residual (CAT-Seg)."""

from __future__ import annotations

from closeup.errors import InputError
from closeup.models.routes.base import Block, Tokens


class ValueClsResidualRoute:
    """``y = x[cls] + W_o W_v ln_1(x)``, then ``y + mlp(ln_2(y))``.

    Source: CAT-Seg (arXiv 2303.11797), ``KU-CVLAB/CAT-Seg`` ``cat_seg/third_party/model_vpt.py``.
    """

    name = "value-cls-residual"

    def __call__(self, block: Block, x: Tokens) -> Tokens:
        """Return the block's output tokens; raise InputError where the tower has no class token."""
        if block.prefix == 0:
            raise InputError(
                "The route 'value-cls-residual' needs a class token, and this tower has none. Use the route 'value'."
            )
        y = x[:, :1] + block.project(block.values(x))
        return y + block.feed_forward(y)
