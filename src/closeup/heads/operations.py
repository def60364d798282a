"""What a model costs: its parameters, and the multiplications of one run, counted from the shapes alone."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

_aten = torch.ops.aten


def count_parameters(*modules: nn.Module) -> int:
    """Return the number of parameters, frozen ones included; one that is shared counts once, buffers do not."""
    return sum({parameter: parameter.numel() for module in modules for parameter in module.parameters()}.values())


def count_operations(run: Callable[[], object]) -> int:
    """Return the multiply-accumulates of what ``run`` does, a backward pass included if it does one.

    Counted are convolutions (a transposed one by its input cells), linear layers, products of matrices and vectors
    however they are written (``matmul``, ``einsum``), and attention's two products, fused or not; a masked or causal
    attention counts whole. Norms, activations, poolings, resizing, additions and products element by element are not.
    Modules and tensors made under ``torch.device("meta")`` cost neither memory nor time, and count the same.
    """
    return _half_of_flops(run, {})


def count_operations_as_published(run: Callable[[], object]) -> int:
    """Return the count behind the GFLOPs of DenseCLIP's table; ``count_operations`` is what is computed.

    Norms and resizing are added: 2 an input element for the batch norm (of a model in ``eval``), 5 for the others, 4
    an output element for bilinear resizing, 1 for nearest. A transposed convolution counts by its output cells: four
    times what it computes in the ViT's pyramid, 174 of that row's GFLOPs. With the last map resized to the image, and
    without the text tower, five of the table's six figures come out to the last digit; the sixth, RN50 with DenseCLIP,
    is 269.8 and stands there as 269.2.

    Source: table of DenseCLIP (arXiv 2112.01518, ``raoyongming/DenseCLIP``), README. The rules, but for transposed
    convolutions, are those of ``facebookresearch/fvcore`` ``fvcore/nn/jit_handles.py``; that they are the table's is
    told by the figures alone.
    """
    rules = {
        _aten.native_batch_norm: _each_input(2),
        _aten.cudnn_batch_norm: _each_input(2),
        _aten.native_layer_norm: _each_input(5),
        _aten.native_group_norm: _each_input(5),
        _aten.upsample_bilinear2d: _each_output(4),
        _aten.upsample_nearest2d: _each_output(1),
        _aten.convolution: _by_output_cells,
    }
    return _half_of_flops(run, rules)


def _half_of_flops(run: Callable[[], object], rules: dict[Any, Callable[..., int]]) -> int:
    """Count with torch's rules, with those that it lacks (a matrix or a vector by a vector), and with more."""
    vectors = {_aten.mv: _each_input(1), _aten.dot: _each_input(1)}
    counter = FlopCounterMode(display=False, custom_mapping={**vectors, **rules})
    with counter:
        run()
    return int(counter.get_total_flops()) // 2  # torch counts a multiplication and an addition as two


def _each_input(cost: int) -> Callable[..., int]:
    return lambda shape, *_rest, **_named: 2 * cost * prod(shape)


def _each_output(cost: int) -> Callable[..., int]:
    return lambda *_shapes, out_shape, **_named: 2 * cost * prod(out_shape)


def _by_output_cells(shape: torch.Size, weight: torch.Size, *_rest: object, **named: torch.Size) -> int:
    return 2 * shape[0] * prod(weight) * prod(named["out_shape"][2:])
