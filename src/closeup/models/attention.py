"""Softmax attention by the way that is fastest where it runs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

LARGEST = 2**28
"""Numbers in the attention matrices of one block that may be kept for a backward pass: half a gigabyte in bfloat16."""


def attend(
    queries: Float[Tensor, "batch heads tokens channels"],
    keys: Float[Tensor, "batch heads tokens channels"],
    values: Float[Tensor, "batch heads tokens channels"],
    bias: Float[Tensor, "*_ tokens tokens"] | None = None,
) -> Float[Tensor, "batch heads tokens channels"]:
    """Return ``softmax(q k / sqrt(channels) + bias) v``.

    torch's fused kernel, except for training in bfloat16 on CPUs: there it gains nothing from the faster arithmetic,
    and two plain products take a half to a third of its time, forward and backward (``benches/train_step.py``), as
    long as the attention matrices are not too large to be kept. They are rounded to bfloat16, which the fused kernel
    does not do; without gradients, where it is slower too, it is left in place for that.
    """
    matrices = queries.shape[0] * queries.shape[1] * queries.shape[2] ** 2
    on_cpu = queries.device.type == "cpu" and queries.dtype == torch.bfloat16
    if not (on_cpu and queries.requires_grad and torch.is_grad_enabled() and matrices <= LARGEST):
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
    attended: Tensor = (scores if bias is None else scores + bias).softmax(dim=-1) @ values
    return attended
