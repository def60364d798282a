"""Attention for training in bfloat16 on CPUs against torch's fused kernel."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from closeup.models import attention
from closeup.models.attention import attend


def heads(dtype: torch.dtype, tokens: int = 17) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    queries, keys, values = (torch.randn(2, 3, tokens, 16).to(dtype).requires_grad_() for _ in range(3))
    return queries, keys, values


def gradients(output: Tensor, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    return [gradient.float() for gradient in torch.autograd.grad(output.float().square().sum(), inputs)]


@pytest.mark.parametrize("biased", [False, True])
def test_training_in_bfloat16_gives_the_fused_kernels_result_and_gradients(biased: bool) -> None:
    exact, rounded = heads(torch.float32), heads(torch.bfloat16)
    bias = torch.randn(17, 17) if biased else None
    expected = F.scaled_dot_product_attention(*exact, attn_mask=bias)
    found = attend(*rounded, None if bias is None else bias.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0.03)
    for one, other in zip(gradients(found, rounded), gradients(expected, exact), strict=True):
        torch.testing.assert_close(one, other, atol=0.03 * float(other.abs().max()), rtol=0.03)


def test_everywhere_else_it_is_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    exact, rounded = heads(torch.float32), heads(torch.bfloat16)
    assert torch.equal(attend(*exact), F.scaled_dot_product_attention(*exact))
    with torch.no_grad():
        assert torch.equal(attend(*rounded), F.scaled_dot_product_attention(*rounded))
    monkeypatch.setattr(attention, "LARGEST", 100)
    assert torch.equal(attend(*rounded), F.scaled_dot_product_attention(*rounded)), "too large to be kept"
