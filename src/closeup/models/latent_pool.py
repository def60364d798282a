"""The attention pool with a learned query (MAP head: SigLIP, PE), read one token at a time."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import AttentionPoolLatent
from torch import Tensor


def pool_each_token(
    pool: AttentionPoolLatent, tokens: Float[Tensor, "batch tokens width"]
) -> Float[Tensor, "batch tokens width"]:
    """Return what the pool gives for each token as if there were no other.

    The pool is ``z = W_o sum_j a_j (W_v x_j + b_v) + b_o``, then ``z + mlp(norm(z))``, with the softmax weights
    ``a_j`` of a learned query. Its output, not its input, lives in the joint space, so a map must pass through
    it. Over a single token the softmax is 1, whatever the query and the key; what is left is
    ``z = W_o (W_v x + b_v) + b_o`` and the same MLP, with no query or key computed. It is the step that the
    value route takes in a self-attention block, and MaskCLIP in a ResNet's pool.
    """
    width = pool.kv.in_features
    bias = pool.kv.bias
    values = F.linear(tokens, pool.kv.weight[width:], None if bias is None else bias[width:])
    out: Tensor = pool.proj_drop(pool.proj(values))
    return out if pool.mlp is None else out + pool.mlp(pool.norm(out))
