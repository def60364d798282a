"""Raw scores of regions and dense maps against a text bank, by the cosine or a matcher; each word by itself."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from closeup._types import DenseMap, Embeddings, Labels
from closeup.errors import InputError
from closeup.match.cosine import cosine, cosine_map
from closeup.match.matcher import Matcher

UNIT = 1e-5
"""How far from one the length of a normalised embedding may lie."""


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


def score(
    regions: Float[Tensor, "regions dim"], bank: Bank, matcher: Matcher | None = None
) -> Float[Tensor, "regions words"]:
    """Return a raw score for every region and word: the cosine, or the matcher's, with the word's best synonym.

    A word's raw score is its own affair: adding a word leaves the others as they were (up to float32
    rounding, 1e-6, since the size of a matrix product decides the order of its sums). A matcher computes where its
    weights are.

    Raises:
        InputError: embeddings of different or other width, or of length one for a matcher of raw ones.
    """
    strings = cosine(regions, bank.embeddings) if matcher is None else pair_scores(regions, bank.embeddings, matcher)
    return reduce_synonyms(strings, bank.owner, len(bank))


def pair_scores(
    regions: Float[Tensor, "regions dim"], texts: Float[Tensor, "texts text_dim"], matcher: Matcher
) -> Float[Tensor, "regions texts"]:
    """Return a matcher's raw score of every region with every text, computed where its weights are.

    Raises:
        InputError: embeddings of different or other width, or of length one for a matcher of raw ones.
    """
    if matcher.inputs == "raw":
        for what, rows in (("regions", regions), ("texts", texts)):
            if len(rows) and bool(((rows.norm(dim=1) - 1).abs() < UNIT).all()):
                raise InputError(
                    f"The {what} have length one, and the matcher {matcher.name!r} was trained on raw embeddings. "
                    "Make regions and maps with normalize=False, and the text bank with mean='mean-of-raw'."
                )
    like = matcher.like(regions)
    scores: Tensor = matcher(regions.to(like), texts.to(like))
    return scores.to(regions.device)


def score_map(maps: DenseMap, bank: Bank, matcher: Matcher | None = None) -> Float[Tensor, "batch words rows cols"]:
    """Return a raw score for every place of dense maps and every word, as ``score`` does."""
    if matcher is None:
        return reduce_synonyms(cosine_map(maps, bank.embeddings), bank.owner, len(bank), dim=1)
    batch, _, rows, cols = maps.shape
    cells = score(maps.movedim(1, 3).flatten(0, 2), bank, matcher)
    return cells.reshape(batch, rows, cols, len(bank)).movedim(3, 1)


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
