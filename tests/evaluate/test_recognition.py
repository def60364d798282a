from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy

from closeup._types import IGNORE
from closeup.errors import InputError
from closeup.evaluate.recognition import RegionRecognition, ranks

NAMES = [f"word {i}" for i in range(7)]


def drawn(seed: int, regions: int, words: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(regions, words, generator=generator)
    return scores, torch.randint(0, words, (regions,), generator=generator)


def brute_rank(row: list[float], label: int) -> int:
    return 1 + sum(1 for i, value in enumerate(row) if i != label and not value < row[label])


@given(seed=st.integers(0, 10_000), regions=st.integers(0, 20), levels=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_rank_is_one_plus_the_words_that_are_not_lower(seed: int, regions: int, levels: int) -> None:
    scores, labels = drawn(seed, regions)
    scores = (scores * levels).round()  # rounding makes ties
    expected = [brute_rank(row, label) for row, label in zip(scores.tolist(), labels.tolist(), strict=True)]
    assert ranks(scores, labels).tolist() == expected


def test_a_rank_without_ties_is_the_place_in_topk() -> None:
    scores, labels = drawn(0, 50)
    order = scores.topk(7, dim=1).indices
    assert torch.equal(ranks(scores, labels), (order == labels[:, None]).int().argmax(dim=1) + 1)


def test_a_model_that_scores_all_words_alike_is_never_right() -> None:
    assert ranks(torch.ones(3, 7), torch.tensor([0, 3, 6])).tolist() == [7, 7, 7]


def test_a_score_that_is_not_a_number_never_helps() -> None:
    scores = torch.tensor([[float("nan"), 0.0, 1.0], [0.5, float("nan"), 1.0]])
    assert ranks(scores, torch.tensor([0, 2])).tolist() == [3, 2]


@pytest.mark.parametrize("k", [1, 5])
def test_macro_and_micro_agree_with_torchmetrics_where_every_class_occurs(k: int) -> None:
    scores, labels = drawn(1, 300)
    metric = RegionRecognition(NAMES)
    metric.update(scores, labels)
    found = metric.compute()
    macro = multiclass_accuracy(scores, labels, num_classes=7, top_k=k, average="macro")
    micro = multiclass_accuracy(scores, labels, num_classes=7, top_k=k, average="micro")
    assert found.macro(k) == pytest.approx(float(macro), abs=1e-6)
    assert found.micro(k) == pytest.approx(float(micro), abs=1e-6)


def test_macro_skips_absent_classes_and_micro_weighs_by_region() -> None:
    metric = RegionRecognition(["a", "b", "c"], ks=(1,))
    scores = torch.tensor([[1.0, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0]])
    metric.update(scores, torch.tensor([0, 0, 0, 1]))
    found = metric.compute()
    assert found.macro() == 0.5
    assert found.micro() == 0.75
    assert found.per_class().isnan().tolist() == [False, False, True]
    assert found.table() == [{"name": "a", "regions": 3, "top1": 1.0}, {"name": "b", "regions": 1, "top1": 0.0}]
    assert found.summary() == {"regions": 4, "classes": 2, "macro_top1": 0.5, "micro_top1": 0.75}


def test_some_classes_are_scored_while_all_words_compete() -> None:
    metric = RegionRecognition(["thing", "stuff"], ks=(1,))
    metric.update(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 0, 1]))
    found = metric.compute()
    assert found.only(torch.tensor([True, False])).macro() == 0.5
    assert found.only(torch.tensor([False, True])).summary()["regions"] == 1


@given(seed=st.integers(0, 10_000), cut=st.integers(0, 30))
@settings(max_examples=40, deadline=None)
def test_order_batches_and_merging_change_nothing(seed: int, cut: int) -> None:
    scores, labels = drawn(seed, 30)
    labels[seed % 30] = IGNORE
    whole, first, second = RegionRecognition(NAMES), RegionRecognition(NAMES), RegionRecognition(NAMES)
    whole.update(scores, labels)
    mixed = torch.randperm(30, generator=torch.Generator().manual_seed(seed))
    first.update(scores[mixed[:cut]], labels[mixed[:cut]])
    second.update(scores[mixed[cut:]], labels[mixed[cut:]])
    first.merge(second)
    assert torch.equal(first.compute().hits, whole.compute().hits)
    assert torch.equal(first.compute().counts, whole.compute().counts)
    assert whole.compute().summary()["regions"] == 29


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_top5_is_never_below_top1_and_a_perfect_model_scores_1(seed: int) -> None:
    scores, labels = drawn(seed, 12)
    metric, perfect = RegionRecognition(NAMES), RegionRecognition(NAMES)
    metric.update(scores, labels)
    perfect.update(torch.eye(7)[labels], labels)
    assert metric.compute().macro(1) <= metric.compute().macro(5)
    assert perfect.compute().macro(1) == perfect.compute().micro(1) == 1.0


def test_k_beyond_the_vocabulary_is_always_a_hit() -> None:
    metric = RegionRecognition(["only"], ks=(1, 5))
    metric.update(torch.zeros(2, 1), torch.tensor([0, 0]))
    assert metric.compute().macro(5) == metric.compute().macro(1) == 1.0


def test_nothing_evaluated_is_none_in_the_summary_and_can_be_written_as_json() -> None:
    metric = RegionRecognition(NAMES)
    metric.update(torch.zeros(0, 7), torch.zeros(0, dtype=torch.int64))
    metric.update(torch.zeros(1, 7), torch.tensor([IGNORE]))
    found = metric.compute()
    assert found.macro() != found.macro()
    assert found.table() == []
    assert json.loads(json.dumps(found.summary(), allow_nan=False))["macro_top1"] is None


def test_a_result_does_not_change_when_more_is_added() -> None:
    metric = RegionRecognition(NAMES)
    before = metric.compute()
    metric.update(*drawn(3, 10))
    assert int(before.counts.sum()) == 0


def test_unusable_input_is_refused_with_the_value() -> None:
    metric = RegionRecognition(NAMES)
    with pytest.raises(InputError, match="3 words but the vocabulary has 7"):
        metric.update(torch.zeros(2, 3), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="2 regions and 1 labels"):
        metric.update(torch.zeros(2, 7), torch.tensor([0]))
    with pytest.raises(InputError, match=r"from 0 to 6.* 7 was"):
        metric.update(torch.zeros(1, 7), torch.tensor([7]))
    with pytest.raises(InputError, match="-2 was"):
        metric.update(torch.zeros(1, 7), torch.tensor([-2]))
    with pytest.raises(InputError, match="no true word"):
        ranks(torch.zeros(1, 7), torch.tensor([IGNORE]))
    with pytest.raises(InputError, match="top-3 was not counted"):
        metric.compute().macro(3)
    with pytest.raises(InputError, match="ks="):
        RegionRecognition(NAMES, ks=(0,))
    with pytest.raises(InputError, match="empty"):
        RegionRecognition([])
    with pytest.raises(InputError, match="merged"):
        metric.merge(RegionRecognition(NAMES, ks=(1,)))
