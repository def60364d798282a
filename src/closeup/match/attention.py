"""The attention matcher: a class token looks at a region and a text, and one number of what it sees is the score.

Officially every pair is a sequence of three tokens. Here no pair is ever written out: the class token is the same
everywhere, and of the output only one number is used, so that each token gives each head no more than a logit and a
value,

    score = sigmoid( bias + sum over heads of  (e^lc sc + e^lv sv + e^lt st) / (e^lc + e^lv + e^lt) )

with c the class token, v the region and t the text. This is exact.

Source: FG-CLIP (Bianchi et al., ``lorebianchi98/FG-CLIP`` ``src/model.py``, class CrossAttentionModule).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from closeup.match.matcher import SLOPE, Inputs, Matcher, Normalisation

BUDGET = 2**20
"""Numbers, one for each head of each pair, that exist at once: 4 MB, which stay in a processor's cache."""


class _Heads(NamedTuple):
    """What tokens give each head: how much they are looked at, as a logarithm, and what they add to the score."""

    logits: Float[Tensor, "*tokens heads"]
    values: Float[Tensor, "*tokens heads"]


class AttentionMatcher(Matcher):
    """One layer of attention over class token, region and text, without residual, norm or position."""

    def __init__(self, dim: int, heads: int, *, inputs: Inputs = "unit", scale: float | None = None) -> None:
        super().__init__("attention", dim, inputs=inputs, scale=scale, settings={"heads": heads})
        self.slope = SLOPE
        self.token = nn.Linear(1, dim)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)

    def forward(
        self, regions: Float[Tensor, "regions dim"], texts: Float[Tensor, "texts text_dim"]
    ) -> Float[Tensor, "regions texts"]:
        """Return the score, 0 to 1, of every region with every text."""
        token, (seen, said) = self._read(regions, texts)
        first = _joined(token, seen)
        rows = max(1, BUDGET // max(1, said.logits.numel()))
        parts = [
            self._finished(base, _pairs(logits, base, said))
            for logits, base in zip(first.logits.split(rows), first.values.split(rows), strict=True)
        ]
        return torch.cat(parts)

    def of_own(
        self,
        regions: Float[Tensor, "regions dim"],
        captions: Float[Tensor, "regions captions text_dim"],
        normalisation: Normalisation = "features",
    ) -> Float[Tensor, "regions captions"]:
        """Return the score of every region with captions of its own; nothing is normalised here, whatever is asked."""
        token, (seen, said) = self._read(regions, captions)
        first = _joined(token, seen)
        gates = (said.logits - first.logits[:, None]).sigmoid()
        return self._finished(first.values, (gates * (said.values - first.values[:, None])).sum(dim=2))

    def _finished(
        self, base: Float[Tensor, "rows heads"], more: Float[Tensor, "rows texts"]
    ) -> Float[Tensor, "rows texts"]:
        bias = self.attention.out_proj.bias[0]
        return (base.sum(dim=1)[:, None] + more + bias).sigmoid()

    def _read(self, *embeddings: Tensor) -> tuple[_Heads, tuple[_Heads, ...]]:
        """Return what the class token and each of some embeddings give the heads."""
        heads, dim = self.attention.num_heads, self.attention.embed_dim
        weight, bias = self.attention.in_proj_weight, self.attention.in_proj_bias
        token = self.token.weight[:, 0] + self.token.bias
        query = F.linear(token, weight[:dim], bias[:dim]) / math.sqrt(dim // heads)
        # The keys matter by their product with the query alone, the values by the first number of the output.
        told = torch.cat([query, self.attention.out_proj.weight[0]])
        matrix = (told[:, None] * weight[dim:]).unflatten(0, (2 * heads, -1)).sum(dim=1)
        offset = (told * bias[dim:]).unflatten(0, (2 * heads, -1)).sum(dim=1)

        def heads_of(tokens: Tensor) -> _Heads:
            return _Heads(*F.linear(tokens, matrix, offset).split(heads, dim=-1))

        return heads_of(token), tuple(heads_of(self.taken(each)) for each in embeddings)


def _joined(token: _Heads, regions: _Heads) -> _Heads:
    """Return regions and the class token as one token each: the softmax of three is one of two, twice over."""
    share = (regions.logits - token.logits).sigmoid()
    logits = torch.logaddexp(regions.logits, token.logits.expand_as(regions.logits))
    return _Heads(logits, token.values + share * (regions.values - token.values))


def _pairs(
    logits: Float[Tensor, "rows heads"], values: Float[Tensor, "rows heads"], texts: _Heads
) -> Float[Tensor, "rows texts"]:
    """Return what each text adds to each row, summed over heads."""
    gates = (texts.logits - logits[:, None]).sigmoid()
    return torch.einsum("rth,th->rt", gates, texts.values) - torch.einsum("rth,rh->rt", gates, values)
