"""The cosine matcher: region embeddings and dense maps against a text bank, words left independent of each other."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from closeup._types import DenseMap, Embeddings, Labels
from closeup.errors import InputError


@runtime_checkable
class Bank(Protocol):
    """What scoring needs of a text bank: a row for every string, and the label each row belongs to."""

    @property
    def embeddings(self) -> Embeddings:
        """One row for every string."""
        ...

    @property
    def owner(self) -> Labels:
        """The label that each row belongs to."""
        ...

    def __len__(self) -> int: ...


def cosine(
    regions: Float[Tensor, "regions dim"], texts: Float[Tensor, "texts text_dim"]
) -> Float[Tensor, "regions texts"]:
    """Return the cosine, -1 to 1, of every region with every text; 0 for an embedding that is all zeros.

    InputError where the two have different dimensions. The wider floating type of the two is used.
    """
    left, right = _prepare(regions, texts)
    return F.normalize(left, dim=1) @ right.T


def cosine_map(maps: DenseMap, texts: Float[Tensor, "texts text_dim"]) -> Float[Tensor, "batch texts rows cols"]:
    """Return the cosine of every place of dense maps with every text, as ``cosine`` does."""
    left, right = _prepare(maps, texts)
    batch, _, rows, cols = maps.shape
    return (right @ F.normalize(left, dim=1).flatten(2)).reshape(batch, len(right), rows, cols)


def score(regions: Float[Tensor, "regions dim"], bank: Bank) -> Float[Tensor, "regions words"]:
    """Return a raw score for every region and word: the cosine with the word's best synonym.

    A word's raw score is its own affair: adding a word leaves the others as they were (up to float32
    rounding, 1e-6, since the size of a matrix product decides the order of its sums).
    """
    return reduce_synonyms(cosine(regions, bank.embeddings), bank.owner, len(bank))


def score_map(maps: DenseMap, bank: Bank) -> Float[Tensor, "batch words rows cols"]:
    """Return a raw score for every place of dense maps and every word, as ``score`` does."""
    return reduce_synonyms(cosine_map(maps, bank.embeddings), bank.owner, len(bank), dim=1)


def reduce_synonyms(
    scores: Float[Tensor, "*strings"], owner: Int[Tensor, " owned"], words: int, dim: int = -1
) -> Float[Tensor, "*words"]:
    """Take the maximum of the strings that belong to a word, along ``dim``; before any softmax, as ODISE does.

    ``owner`` holds a label for every string; InputError if it does not fit ``scores`` and ``words``.
    """
    if scores.shape[dim] != len(owner):
        raise InputError(f"{scores.shape[dim]} columns of scores for {len(owner)} strings; give the bank's own owner.")
    if len(owner) == words and torch.equal(owner, torch.arange(words, device=owner.device)):
        return scores
    counts = torch.bincount(owner, minlength=words) if len(owner) else owner.new_zeros(words)
    if len(counts) != words or bool((counts == 0).any()):
        raise InputError(f"owner names {int((counts > 0).sum())} of {len(counts)} words, but there are {words} words.")
    last = scores.movedim(dim, -1)
    empty = last.new_full((*last.shape[:-1], words), -torch.inf)
    index = owner.to(scores.device).expand(last.shape)
    return empty.scatter_reduce(-1, index, last, "amax").movedim(-1, dim)


def probabilities(scores: Float[Tensor, "*shape"], scale: float | Tensor, dim: int = -1) -> Float[Tensor, "*shape"]:
    """Return the softmax over the words of ``scale`` (CLIP's exp(logit_scale), mostly 100) times the scores.

    Unlike a raw score it depends on every word of the vocabulary.
    """
    return (scores.float() * scale).softmax(dim=dim)


def top_k(
    scores: Float[Tensor, "regions words"], k: int
) -> tuple[Float[Tensor, "regions k"], Int[Tensor, "regions k"]]:
    """Return the ``k`` best scores of every region, best first, and their labels; all where there are fewer words."""
    if k < 1:
        raise InputError(f"k is {k}; ask for at least one word a region.")
    best = scores.topk(min(k, scores.shape[1]), dim=1)
    return best.values, best.indices


def _prepare(features: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    if features.shape[1] != texts.shape[1]:
        raise InputError(
            f"The regions have {features.shape[1]} dimensions and the texts {texts.shape[1]}; "
            "they come from different models. Embed both with the same one."
        )
    kind = torch.promote_types(features.dtype, texts.dtype)
    return features.to(kind), F.normalize(texts.to(device=features.device, dtype=kind), dim=1)
