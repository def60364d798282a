from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from closeup.errors import InputError
from closeup.evaluate.fine_grained import FineGrained, rank_captions, score_means
from goldens import Golden, cases

NAN = float("nan")


def ragged(golden: Golden) -> list[Tensor]:
    return [
        row[:length] for row, length in zip(golden["in/score_lists"], golden["in/score_lens"].tolist(), strict=True)
    ]


@pytest.mark.parametrize("golden", cases("fgovd_ranks"))
def test_ranks_are_fg_clips(golden: Golden) -> None:
    scores, theirs = ragged(golden), golden["out/get_ranks/item_ranks"]
    for negatives in range(1, 11):
        found, column = rank_captions(scores, negatives), theirs[:, negatives - 1]
        assert found.ranks.tolist() == column[column > 0].tolist()
        assert found.left_out == int((column < 0).sum())
        assert len(found.ranks) >= 2  # with fewer the official code gives -1 in place of a mean
        torch.testing.assert_close(torch.tensor(found.mean), golden["out/get_ranks/mean"][negatives - 1])
        assert found.median("fg-clip") == golden["out/get_ranks/median"][negatives - 1]


@pytest.mark.parametrize("golden", cases("fgovd_ranks"))
def test_means_of_scores_are_fg_clips(golden: Golden) -> None:
    scores = ragged(golden)
    for negatives in (2, 7, 10):
        found = score_means(scores, negatives, beyond=True)
        ours = torch.tensor([found.right, found.best_wrong, found.wrong])
        torch.testing.assert_close(ours, golden[f"out/get_ranks/averages_{negatives}"])


@pytest.mark.parametrize("golden", cases("fgovd_ranks"))
def test_why_fg_clips_means_without_a_limit_are_no_means(golden: Golden) -> None:
    """Every item is summed, but the sum is divided by the items that have the most captions: it may exceed 1."""
    scores = ragged(golden)
    longest = sum(len(row) == 11 for row in scores)
    sums = torch.tensor([[float(row[0]), float(row[1:].max()), float(row[1:].mean())] for row in scores]).sum(dim=0)
    theirs = golden["out/get_ranks/averages_None"]
    torch.testing.assert_close(sums / longest, theirs)
    assert float(theirs.max()) > 1 > max(float(row.max()) for row in scores)


@given(
    rows=st.lists(st.lists(st.sampled_from([0.0, 0.25, 0.5, NAN]), min_size=1, max_size=6), max_size=8),
    negatives=st.integers(1, 5),
)
@settings(max_examples=80, deadline=None)
def test_ranks_agree_with_a_loop(rows: list[list[float]], negatives: int) -> None:
    expected = []
    for right, *wrong in rows:
        if len(wrong) >= negatives:
            beaten = sum(each < right for each in wrong[:negatives])  # nothing is below NaN, nor NaN below anything
            expected.append(1 + negatives - beaten)
    found = rank_captions([torch.tensor(row) for row in rows], negatives)
    assert found.ranks.tolist() == expected
    assert found.left_out == len(rows) - len(expected)
    if expected:
        assert found.mean == pytest.approx(statistics.mean(expected))
        assert found.median() == statistics.median(expected)
        assert found.median("fg-clip") == statistics.median_high(expected)
        assert found.top1 == pytest.approx(expected.count(1) / len(expected))


def test_random_scores_have_the_rank_of_chance_and_equal_ones_the_worst() -> None:
    scores = torch.rand(20_000, 11, generator=torch.Generator().manual_seed(0))
    for negatives, chance in ((10, 6.0), (7, 4.5), (2, 2.0)):
        found = rank_captions(list(scores), negatives)
        assert found.chance == chance
        assert found.mean == pytest.approx(chance, abs=0.1)
        assert rank_captions([torch.full((11,), 0.3)], negatives).mean == negatives + 1


def test_the_order_of_wrong_captions_matters_only_where_some_are_left() -> None:
    row = torch.tensor([0.5, 0.1, 0.2, 0.9])
    assert rank_captions([row], 2).ranks.tolist() == [1]
    assert rank_captions([row[[0, 3, 2, 1]]], 2).ranks.tolist() == [2]
    assert rank_captions([row], 3).ranks.tolist() == rank_captions([row[[0, 3, 2, 1]]], 3).ranks.tolist()


def test_medians_by_name() -> None:
    found = FineGrained(torch.tensor([5, 1, 1, 4]), 5)
    assert (found.median(), found.median("fg-clip"), found.median("fg-ovd")) == (2.5, 4, 5)
    assert FineGrained(torch.tensor([3]), 5).median("fg-ovd") == 3
    with pytest.raises(InputError, match="Unknown median 'midle'"):
        found.median("midle")


def test_means_of_scores_are_of_the_captions_that_were_asked() -> None:
    scores = [torch.tensor([0.5, 0.1, 0.3, 0.9]), torch.tensor([0.7, 0.3, 0.5]), torch.tensor([0.0, 0.0])]
    found = score_means(scores, 2)
    assert (found.right, found.best_wrong, found.wrong) == pytest.approx((0.6, 0.4, 0.3))
    assert math.isnan(score_means(scores, 4).right)


def test_summary_tells_what_the_figures_mean() -> None:
    scores = [torch.tensor([0.5, 0.1, 0.3]), torch.tensor([0.7, 0.8, 0.5]), torch.tensor([0.0, 0.0])]
    assert rank_captions(scores, 2).summary() == {
        "mean_rank": 1.5,
        "median_rank": 1.5,
        "top1": 0.5,
        "chance_rank": 2.0,
        "negatives": 2,
        "items": 2,
        "left_out": 1,
        "ties": "against",
    }
    nothing = rank_captions(scores, 9)
    assert nothing.summary()["mean_rank"] is None
    assert math.isnan(nothing.mean)
    assert math.isnan(nothing.median())


def test_unusable_input_is_refused_with_the_value() -> None:
    with pytest.raises(InputError, match="negatives is 0"):
        rank_captions([torch.ones(3)], 0)
    with pytest.raises(InputError, match="item 1 has no scores"):
        rank_captions([torch.ones(3), torch.ones(0)], 1)
