from __future__ import annotations

import open_clip.loss
import pytest
import torch
from torch.nn.functional import normalize

from closeup.recipes.contrastive import contrastive_loss, same_captions
from closeup.recipes.order import ShardedBatches
from closeup.recipes.schedule import DECAYS, warmup_cosine, warmup_polynomial


def embeddings(count: int, seed: int) -> torch.Tensor:
    return normalize(torch.randn(count, 12, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_without_equal_captions_it_is_open_clips_loss() -> None:
    images, texts, scale = embeddings(9, 0), embeddings(9, 1), torch.tensor(14.3)
    theirs = open_clip.loss.ClipLoss()(images, texts, scale)
    assert contrastive_loss(images, texts, scale).item() == pytest.approx(theirs.item(), abs=1e-6)


def test_equal_captions_are_taken_out_of_both_softmaxes() -> None:
    images, texts, scale = embeddings(5, 0), embeddings(5, 1), torch.tensor(10.0)
    same = same_captions(torch.tensor([[1, 2], [3, 4], [1, 2], [5, 6], [1, 2]]))
    expected = 0.0
    for i in range(5):
        rivals = [j for j in range(5) if j == i or not same[i, j]]
        place = rivals.index(i)
        expected -= (scale * images[i] @ texts[rivals].T).log_softmax(0)[place].item() / 10
        expected -= (scale * texts[i] @ images[rivals].T).log_softmax(0)[place].item() / 10
    assert contrastive_loss(images, texts, scale, same).item() == pytest.approx(expected, abs=1e-5)


def test_a_batch_of_one_caption_costs_nothing() -> None:
    tokens = torch.ones(4, 3, dtype=torch.int64)
    loss = contrastive_loss(embeddings(4, 0), embeddings(4, 1), torch.tensor(10.0), same_captions(tokens))
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("world", "parts"), [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_shares_of_a_step_add_up_to_its_batch(world: int, parts: int) -> None:
    shares = [list(ShardedBatches(3, 5, 12, rank=rank, world=world, parts=parts)) for rank in range(world)]
    assert all(len(share) == 2 * parts for share in shares)
    for step in range(2):
        positions = [p for share in shares for part in share[step * parts : (step + 1) * parts] for p in part]
        assert sorted(positions) == list(range((3 + step) * 12, (4 + step) * 12))


def test_the_rate_rises_then_falls_to_its_floor() -> None:
    rates = [warmup_cosine(step, steps=100, warmup=10, final=0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)


def test_the_polynomial_rate_is_mmsegmentations() -> None:
    """``(base - least) (1 - step / steps)^0.9 + least``, for DenseCLIP's 80,000 steps from 1e-4 to 1e-6."""
    base, least = 1e-4, 1e-6
    for step in (1500, 2000, 40_000, 79_999):
        expected = (base - least) * (1 - step / 80_000) ** 0.9 + least
        rate = base * warmup_polynomial(step, steps=80_000, warmup=1500, final=least / base)
        assert rate == pytest.approx(expected, rel=1e-12)
    assert base * warmup_polynomial(40_000, steps=80_000, warmup=1500, final=0.01) == pytest.approx(
        5.40528e-5, rel=1e-5
    )
    rising = [warmup_polynomial(step, steps=80_000, warmup=1500) for step in range(1501)]
    assert rising == sorted(rising[:1500]) + rising[1500:]
    assert rising[1499] == pytest.approx(rising[1500], rel=1e-4)
    assert rising[749] == pytest.approx(0.5 * (1 - 749 / 80_000) ** 0.9)


@pytest.mark.parametrize("name", DECAYS)
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (2, 5), (7, 0), (100, 10)])
def test_every_rate_is_positive_and_at_most_the_base(name: str, steps: int, warmup: int) -> None:
    factors = [DECAYS[name](step, steps=steps, warmup=warmup) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    assert DECAYS[name](steps, steps=steps, warmup=0, final=0.25) == pytest.approx(0.25)
