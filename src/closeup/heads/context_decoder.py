"""DenseCLIP's context decoder: words, or contexts, look at a picture and answer with a change of themselves.

    x = x + selfattention(LN x)
    x = x + crossattention(LN x, memory)         memory: the picture's embedding and its map
    x = x + MLP(LN x)

Source: Rao et al., DenseCLIP, CVPR 2022 (arXiv 2112.01518); ``raoyongming/DenseCLIP``
``segmentation/denseclip/models.py``, ``ContextDecoder``.
"""

from __future__ import annotations

from typing import TypeAlias

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Queries: TypeAlias = Float[Tensor, "batch queries _"]
Memory: TypeAlias = Float[Tensor, "batch places _"]


class ContextDecoder(nn.Module):
    """From queries of ``dim`` and a memory of ``memory_dim`` dimensions to one answer of ``dim`` a query.

    Neither is normalised to unit length before.
    """

    def __init__(
        self, dim: int, memory_dim: int, *, width: int = 256, heads: int = 4, layers: int = 3, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.memory = nn.Sequential(nn.LayerNorm(memory_dim), nn.Linear(memory_dim, width), nn.LayerNorm(width))
        self.queries = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, width))
        self.layers = nn.ModuleList(DecoderLayer(width, heads, dropout) for _ in range(layers))
        self.answer = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, queries: Queries, memory: Memory) -> Queries:
        """Return the answers."""
        seen, x = self.memory(memory), self.queries(queries)
        for layer in self.layers:
            x = layer(x, seen)
        answers: Tensor = self.answer(x)
        return answers


class DecoderLayer(nn.Module):
    """Queries look at each other, then at the memory; the memory has no norm of the layer's own."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.self_attention = Attention(width, heads, dropout)
        self.cross_attention = Attention(width, heads, dropout)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Queries, memory: Memory) -> Queries:
        """Return the queries after both looks."""
        own = self.norms[0](x)
        x = x + self.self_attention(own, own)
        x = x + self.cross_attention(self.norms[1](x), memory)
        moved: Tensor = x + self.dropout(self.feed_forward(self.norms[2](x)))
        return moved


class Attention(nn.Module):
    """Attention without biases of queries, keys and values; dropout on what it returns and not on its weights."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Queries, memory: Memory) -> Queries:
        """Return what each query finds in the memory."""
        queries, keys, values = (
            projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projected in (self.query(x), self.key(memory), self.value(memory))
        )
        found = F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)
        returned: Tensor = self.dropout(self.out(found))
        return returned
