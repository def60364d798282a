"""Rows of every process in every process, with gradients back to where they came from."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor


def gather(values: Shaped[Tensor, "rows ..."]) -> Shaped[Tensor, "all_rows ..."]:
    """Return the rows of every process in rank order, with gradients to all of them; itself in a lone process.

    When every process computes the same loss from the gathered rows, the mean of gradients over processes, as
    data-parallel training takes it, is the gradient of that loss.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return values
    gathered: Tensor = _Gather.apply(values)
    return gathered


def gather_ragged(values: Shaped[Tensor, "rows ..."]) -> Shaped[Tensor, "all_rows ..."]:
    """Return the rows of every process as ``gather`` does, where each may have another number of them."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return values
    counts: list[int] = gather(torch.tensor([len(values)], device=values.device)).tolist()
    padded = torch.cat([values, values.new_zeros(max(counts) - len(values), *values.shape[1:])])
    parts = gather(padded).split(len(padded))
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


class _Gather(torch.autograd.Function):
    """``all_gather``; backward, each process receives the sum of all processes' gradients of its own rows."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ANN401
        parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        total = gradient.contiguous()
        dist.all_reduce(total)
        own: Tensor = total.chunk(dist.get_world_size())[dist.get_rank()]
        return own
