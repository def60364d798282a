"""The queries and values of attention, which CAT-Seg lets learn while the rest of a CLIP stays as it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SEPARATE = ("q_proj.weight", "v_proj.weight")
FUSED = ("in_proj_weight", "qkv.weight")
"""One matrix of queries, keys and values, in this order."""


def queries_and_values(module: nn.Module, prefix: str = "") -> dict[str, nn.Parameter]:
    """Return the matrices that make queries and values in every attention layer of a module, by name, to be learned.

    Where one matrix makes keys too, the gradient of that third is held at zero: with no weight decay it does not move.
    """
    found = {
        name: parameter
        for name, parameter in module.named_parameters(prefix=prefix)
        if name.endswith((*SEPARATE, *FUSED)) and "pool" not in name
    }
    for name, parameter in found.items():
        parameter.requires_grad_(True)
        if name.endswith(FUSED):
            parameter.register_hook(_without_keys)
    return found


def _without_keys(gradient: Tensor) -> Tensor:
    queries, keys, values = gradient.chunk(3)
    return torch.cat([queries, torch.zeros_like(keys), values])
