from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from closeup.errors import InputError
from closeup.evaluate import retrieval
from closeup.evaluate.retrieval import image_to_text_ranks, retrieval_recall, text_to_image_ranks


def drawn(seed: int, images: int = 8, texts: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(images, 4, generator=generator),
        torch.randn(texts, 4, generator=generator),
        torch.randint(0, images, (texts,), generator=generator),
    )


def brute(images: Tensor, texts: Tensor, owner: Tensor) -> tuple[list[int], list[int]]:
    scores = torch.cosine_similarity(images[:, None].double(), texts[None].double(), dim=2)
    back = [int((scores[:, t] > scores[i, t]).sum()) + 1 for t, i in enumerate(owner.tolist())]
    forward = []
    for i in sorted(set(owner.tolist())):
        order = scores[i].argsort(descending=True).tolist()
        forward.append(next(place for place, t in enumerate(order) if owner[t] == i))
    # The rank of the best own caption counts only captions of other images: those before it in the order.
    return back, [place + 1 for place in forward]


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_ranks_agree_with_sorting(seed: int) -> None:
    images, texts, owner = drawn(seed)
    back, forward = brute(images, texts, owner)
    assert text_to_image_ranks(images, texts, owner).tolist() == back
    assert image_to_text_ranks(images, texts, owner).tolist() == forward


def test_one_of_five_captions_is_enough() -> None:
    images = torch.eye(3)
    texts = torch.eye(3).repeat_interleave(5, dim=0)
    texts[1:5] = torch.tensor([0.0, 0.0, 1.0])  # four of the first image's captions belong elsewhere
    owner = torch.arange(3).repeat_interleave(5)
    found = retrieval_recall(images, texts, owner, ks=(1,))
    assert found.image_to_text == (2 / 3,)  # the third image ties with the four strays
    assert found.text_to_image == (11 / 15,)
    assert image_to_text_ranks(images, texts, owner).tolist() == [1, 1, 5]


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = retrieval_recall(*drawn(5))
    monkeypatch.setattr(retrieval, "BLOCK", 3)
    assert retrieval_recall(*drawn(5)) == whole


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_order_and_length_of_embeddings_change_nothing(seed: int) -> None:
    images, texts, owner = drawn(seed)
    mixed = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
    assert retrieval_recall(images * 3, texts[mixed], owner[mixed]) == retrieval_recall(images, texts, owner)


def bent(images: Tensor, texts: Tensor) -> Tensor:
    """Score without lengths, of images and texts of different widths: one pair at a time would give the same."""
    return (images[:, None, :3].exp() - texts[None, :, :3]).abs().sum(dim=2).neg()


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_any_score_ranks_as_a_loop_over_pairs(seed: int) -> None:
    images, texts, owner = drawn(seed)
    texts = texts[:, :3] * 2  # neither of unit length nor as wide as the images

    def pair(i: int, t: int) -> float:
        return float(bent(images[i : i + 1], texts[t : t + 1]))

    rows, columns = range(len(images)), range(len(texts))
    back = [sum(pair(i, t) >= pair(int(owner[t]), t) for i in rows) for t in columns]
    forward = []
    for i in sorted(set(owner.tolist())):
        best = max(pair(i, t) for t in columns if owner[t] == i)
        forward.append(1 + sum(pair(i, t) >= best for t in columns if owner[t] != i))
    assert text_to_image_ranks(images, texts, owner, bent).tolist() == back
    assert image_to_text_ranks(images, texts, owner, bent).tolist() == forward
    recall = retrieval_recall(images, texts, owner, ks=(1, 5), score=bent)
    assert recall.text_to_image == tuple(sum(rank <= k for rank in back) / len(back) for k in (1, 5))
    assert recall.image_to_text == tuple(sum(rank <= k for rank in forward) / len(forward) for k in (1, 5))


def test_a_score_sees_small_blocks_and_no_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    images, texts, owner = drawn(5)
    whole = retrieval_recall(images, texts, owner, score=bent)
    seen: list[tuple[int, int]] = []

    def watched(some: Tensor, others: Tensor) -> Tensor:
        seen.append((len(some), len(others)))
        found = bent(some, others)
        assert not found.requires_grad
        return found

    monkeypatch.setattr(retrieval, "BLOCK", 3)
    assert retrieval_recall(images.requires_grad_(), texts, owner, score=watched) == whole
    assert max(max(sizes) for sizes in seen) == 3


def test_perfect_is_1_and_a_collapsed_model_is_0() -> None:
    same = torch.ones(20, 4)
    good = retrieval_recall(torch.eye(20), torch.eye(20), torch.arange(20))
    bad = retrieval_recall(same, same, torch.arange(20))
    assert set(good.summary().values()) == {1.0}
    assert set(bad.summary().values()) == {0.0}
    assert list(good.summary()) == [f"{way}_r{k}" for way in ("text_to_image", "image_to_text") for k in (1, 5, 10)]


def test_an_image_without_a_caption_competes_but_asks_nothing() -> None:
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[0.0, 1.0]])
    assert image_to_text_ranks(images, texts, torch.tensor([0])).tolist() == [1]
    assert text_to_image_ranks(images, texts, torch.tensor([0])).tolist() == [2]


def test_unusable_input_is_refused_with_the_value() -> None:
    images, texts, owner = drawn(0)
    with pytest.raises(InputError, match="4 dimensions and texts 3"):
        retrieval_recall(images, texts[:, :3], owner)
    with pytest.raises(InputError, match="8 was"):
        retrieval_recall(images, texts, owner.clamp(min=8))
    with pytest.raises(InputError, match="-1"):
        retrieval_recall(images, texts, owner.clamp(max=-1))
    with pytest.raises(InputError, match="no caption"):
        retrieval_recall(images, texts[:0], owner[:0])
    with pytest.raises(InputError, match="shape"):
        retrieval_recall(images, texts, owner, score=lambda some, others: torch.zeros(len(some)))
    with pytest.raises(InputError, match="ks="):
        retrieval_recall(images, texts, owner, ks=())
