"""The attention route: the last block as it was trained."""

from __future__ import annotations

from closeup.models.routes.base import Block, Tokens


class AttentionRoute:
    """``y = x + W_o attention(q, k, v)``, then ``y + mlp(ln_2(y))``: nothing is changed.

    The class token of this route is the embedding that CLIP compares with text; the patch tokens have
    mixed with the whole image, which is what the other routes avoid.
    """

    name = "attention"

    def __call__(self, block: Block, x: Tokens) -> Tokens:
        """Return the ordinary output tokens of the block."""
        y = x + block.project(block.attend(*block.queries_keys_values(x)))
        return y + block.feed_forward(y)
