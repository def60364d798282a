from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from closeup.errors import InputError
from closeup.match.cosine import cosine, cosine_map
from closeup.match.scores import probabilities, reduce_synonyms, score, score_map, top_k
from goldens import Golden, assert_close, cases


class Rows(NamedTuple):
    embeddings: Tensor
    owner: Tensor
    words: int

    def __len__(self) -> int:
        return self.words


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_cosine_is_torchs_cosine_similarity() -> None:
    regions, texts = random(4, 8), random(5, 8, seed=1) * 30
    expected = F.cosine_similarity(regions[:, None], texts[None], dim=2)
    torch.testing.assert_close(cosine(regions, texts), expected)


def test_a_zero_embedding_scores_zero_and_no_regions_are_fine() -> None:
    assert cosine(torch.zeros(1, 8), random(5, 8)).tolist() == [[0.0] * 5]
    assert cosine(torch.zeros(0, 8), random(5, 8)).shape == (0, 5)


def test_the_wider_type_is_used() -> None:
    assert cosine(random(2, 8).bfloat16(), random(3, 8)).dtype == torch.float32
    assert cosine(random(2, 8).bfloat16(), random(3, 8).bfloat16()).dtype == torch.bfloat16


def test_two_models_are_told_apart() -> None:
    with pytest.raises(InputError, match="8 dimensions and the texts 9"):
        cosine(random(2, 8), random(3, 9))


def test_a_map_scores_as_its_places_do() -> None:
    maps, texts = random(2, 8, 3, 4), random(5, 8, seed=1)
    scores = cosine_map(maps, texts)
    for image in range(2):
        for row in range(3):
            for col in range(4):
                expected = cosine(maps[image, :, row, col][None], texts)[0]
                torch.testing.assert_close(scores[image, :, row, col], expected)


def test_both_sides_are_differentiable() -> None:
    maps, texts = random(1, 4, 2, 2).double().requires_grad_(), random(3, 4, seed=1).double().requires_grad_()
    owner = torch.tensor([0, 1, 1])
    assert torch.autograd.gradcheck(lambda m, t: reduce_synonyms(cosine_map(m, t), owner, 2, dim=1), (maps, texts))


@given(st.lists(st.integers(0, 4), max_size=12), st.integers(0, 2))
def test_reduce_synonyms_is_a_loop_over_words(extra: list[int], dim: int) -> None:
    owner = torch.tensor([4, 2, 0, 1, 3, *extra])
    shape = [3, 3, 3]
    shape[dim] = len(owner)
    scores = random(*shape)
    expected = torch.stack([scores.movedim(dim, 0)[owner == word].amax(0) for word in range(5)], dim=dim)
    assert torch.equal(reduce_synonyms(scores, owner, 5, dim=dim), expected)


@pytest.mark.parametrize(("owner", "words"), [([0, 1, 1], 3), ([0, 2, 2], 3), ([0, 1], 2), ([0, 1, 2], 2)])
def test_an_owner_that_does_not_fit_is_refused(owner: list[int], words: int) -> None:
    with pytest.raises(InputError):
        reduce_synonyms(random(2, 3), torch.tensor(owner), words)


def test_score_is_the_best_synonyms_cosine() -> None:
    bank = Rows(random(4, 8, seed=1), torch.tensor([0, 1, 1, 2]), 3)
    regions, maps = random(5, 8), random(2, 8, 3, 4)
    plain = cosine(regions, bank.embeddings)
    expected = torch.stack([plain[:, 0], plain[:, 1:3].amax(1), plain[:, 3]], dim=1)
    assert torch.equal(score(regions, bank), expected)
    assert score_map(maps, bank).shape == (2, 3, 3, 4)
    torch.testing.assert_close(score_map(maps, bank)[1, :, 2, 3], score(maps[1, :, 2, 3][None], bank)[0])


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 70))
def test_adding_words_leaves_raw_scores(regions: int, words: int, added: int) -> None:
    features, texts = random(regions, 64), random(words + added, 64, seed=1)
    few = score(features, Rows(texts[:words], torch.arange(words), words))
    many = score(features, Rows(texts, torch.arange(words + added), words + added))
    torch.testing.assert_close(many[:, :words], few, rtol=0, atol=1e-6)


@given(st.permutations(range(6)))
def test_permuted_words_permute_the_scores(order: list[int]) -> None:
    regions, texts = random(4, 16), random(6, 16, seed=1)
    whole = score(regions, Rows(texts, torch.arange(6), 6))
    torch.testing.assert_close(score(regions, Rows(texts[order], torch.arange(6), 6)), whole[:, order])


def test_probabilities_are_a_softmax() -> None:
    scores = cosine(random(3, 8), random(5, 8, seed=1))
    torch.testing.assert_close(probabilities(scores, 100.0), torch.softmax(100 * scores, dim=1))
    torch.testing.assert_close(probabilities(scores, torch.tensor(7.0)).sum(1), torch.ones(3))
    assert probabilities(scores.bfloat16(), 100.0).dtype == torch.float32
    torch.testing.assert_close(probabilities(scores, 1.0, dim=0).sum(0), torch.ones(5))


def test_top_k_sorts_and_stops_at_the_last_word() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.5]])
    values, labels = top_k(scores, 2)
    assert (values.tolist(), labels.tolist()) == ([[pytest.approx(0.9), pytest.approx(0.5)]], [[1, 2]])
    assert top_k(scores, 5)[1].tolist() == [[1, 2, 0]]
    with pytest.raises(InputError, match="k is 0"):
        top_k(scores, 0)


@pytest.mark.parametrize("golden", cases("odise_fusion"))
def test_scores_with_synonyms_agree_with_odise(golden: Golden) -> None:
    labels = golden.config["labels"]
    owner = torch.tensor([label for label, words in enumerate(labels) for _ in words])
    regions = golden["in/clip_mask_embed"]
    scores = score(regions.flatten(0, 1), Rows(golden["in/clip_text_embed"], owner, len(labels)))
    scale = golden["w/clip.logit_scale"].exp().clamp(max=100)
    assert_close((scores * scale).reshape(*regions.shape[:2], len(labels)), golden["out/clip_logits"])
