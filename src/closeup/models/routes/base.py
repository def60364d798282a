"""The last attention block, taken apart, so that a route is nothing but another way to put it together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol, TypeAlias, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from closeup.models.attention import attend

Grid: TypeAlias = tuple[int, int]
"""Rows and columns of patches."""

Tokens: TypeAlias = Float[Tensor, "batch tokens embed"]
"""Prefix tokens (the class token, where there is one) first, then patches row by row."""

Heads: TypeAlias = Float[Tensor, "batch heads tokens channels"]
"""Queries, keys or values, split by head."""


class Block(ABC):
    """The parts of one pre-norm transformer block; each tower family wraps its own block in these words."""

    prefix: int
    """Number of tokens before the patches."""

    grid: Grid
    """How the patches lie, for routes that look at neighbours."""

    @abstractmethod
    def queries_keys_values(self, x: Tokens) -> tuple[Heads, Heads, Heads]:
        """Return q, k, v of the normalised input, with the family's biases, norms and rotation applied."""

    @abstractmethod
    def values(self, x: Tokens) -> Tokens:
        """Return v of the normalised input alone, heads joined: no query or key is computed."""

    @abstractmethod
    def project(self, joined: Tokens) -> Tokens:
        """Apply what stands between the heads and the residual: inner norm, output projection, layer scale."""

    @abstractmethod
    def feed_forward(self, x: Tokens) -> Tokens:
        """Return the second residual branch, norm and layer scale included, without the residual."""

    def attend(
        self, queries: Heads, keys: Heads, values: Heads, bias: Float[Tensor, "tokens tokens"] | None = None
    ) -> Tokens:
        """Return ``softmax(q k / sqrt(channels) + bias) v``, heads joined, before the output projection."""
        mask = None if bias is None else bias.to(queries)
        return attend(queries, keys, values, mask).transpose(1, 2).flatten(2)


@runtime_checkable
class Route(Protocol):
    """How the last attention block is replaced so that every token keeps to its own place."""

    name: str

    def __call__(self, block: Block, x: Tokens) -> Tokens:
        """Return the block's output tokens for its input tokens ``x``."""
        ...
