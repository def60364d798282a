"""Attention written out as two matrix products, for training on CPUs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def explicit_attention(model: nn.Module) -> Iterator[None]:
    """Make every ``nn.MultiheadAttention`` of a model form its attention matrix instead of calling the fused kernel.

    The result is the same. For the short sequences of small pictures the backward pass of torch's fused CPU
    kernel takes several times as long as the two plain products, in bfloat16 above all
    (``benches/train_step.py`` has the figures); for long sequences and on GPUs the fused kernel is right.
    """
    handles = [
        module.register_forward_pre_hook(_with_weights, with_kwargs=True)
        for module in model.modules()
        if isinstance(module, nn.MultiheadAttention)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _with_weights(
    _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, {**kwargs, "need_weights": True, "average_attn_weights": False}
