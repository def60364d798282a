from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

from closeup._types import IGNORE
from closeup.errors import InputError
from closeup.evaluate.segmentation import (
    SemanticSegmentation,
    check_absent,
    confusion_matrix,
    mean_accuracy,
    mean_iou,
    per_class_iou,
    pixel_accuracy,
)


def drawn(seed: int, words: int = 5, none: bool = True) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    low = IGNORE if none else 0
    return (
        torch.randint(low, words, (6, 9), generator=generator),
        torch.randint(IGNORE, words, (6, 9), generator=generator),
    )


def brute_iou(predicted: Tensor, truth: Tensor, word: int) -> float:
    pairs = [(p, t) for p, t in zip(predicted.flatten().tolist(), truth.flatten().tolist(), strict=True) if t != IGNORE]
    union = sum(1 for pair in pairs if word in pair)
    return sum(1 for pair in pairs if pair == (word, word)) / union if union else float("nan")


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_iou_agrees_with_counting_pixels_one_by_one(seed: int) -> None:
    predicted, truth = drawn(seed)
    found = per_class_iou(confusion_matrix(predicted, truth, 5))
    expected = torch.tensor([brute_iou(predicted, truth, word) for word in range(5)], dtype=torch.float64)
    torch.testing.assert_close(found, expected, equal_nan=True)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_pooled_iou_and_confusion_agree_with_torchmetrics(seed: int) -> None:
    ours = SemanticSegmentation("abcde")
    theirs = MulticlassJaccardIndex(5, average="none", ignore_index=IGNORE)
    counts = MulticlassConfusionMatrix(5, ignore_index=IGNORE)
    for step in range(3):
        predicted, truth = drawn(seed + step, none=False)
        ours.update(predicted, truth)
        theirs.update(predicted, truth)
        counts.update(predicted, truth)
    confusion = ours.compute().confusion
    assert torch.equal(confusion[:, :5], counts.compute())
    torch.testing.assert_close(per_class_iou(confusion).float(), theirs.compute())
    assert mean_iou(confusion) == pytest.approx(float(theirs.compute().mean()), abs=1e-6)


def test_iou_is_pooled_over_the_data_set_and_not_over_images() -> None:
    metric = SemanticSegmentation(["a", "b"])
    metric.update(torch.tensor([[0, 0], [0, 0]]), torch.tensor([[0, 0], [0, 1]]))
    metric.update(torch.ones(2, 2, dtype=torch.int64), torch.ones(2, 2, dtype=torch.int64))
    assert per_class_iou(metric.compute().confusion)[1].item() == pytest.approx(0.8)


def test_a_class_predicted_but_nowhere_true_is_ignored_or_counts_as_zero() -> None:
    confusion = confusion_matrix(torch.tensor([0, 0, 2]), torch.tensor([0, 0, 0]), 4)
    assert mean_iou(confusion, "ignore") == pytest.approx(2 / 3)
    assert mean_iou(confusion, "zero") == pytest.approx(1 / 3)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_both_rules_agree_with_counting_pixels_one_by_one(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    metric = SemanticSegmentation("abcdefgh")
    maps = [[torch.randint(IGNORE, top, (4, 5), generator=generator) for top in (6, 4)] for _ in range(3)]
    for predicted, truth in maps:
        metric.update(predicted, truth)
    predicted, truth = (torch.cat([pair[part] for pair in maps]) for part in (0, 1))
    pairs = [(p, t) for p, t in zip(predicted.flatten().tolist(), truth.flatten().tolist(), strict=True) if t != IGNORE]
    true, found = ({pair[part] for pair in pairs} - {IGNORE} for part in (1, 0))
    total = sum(brute_iou(predicted, truth, word) for word in true)
    confusion = metric.compute().confusion
    assert mean_iou(confusion, "ignore") == pytest.approx(total / len(true))
    assert mean_iou(confusion, "zero") == pytest.approx(total / len(true | found))
    assert len(true | found) > len(true)


def test_an_unknown_rule_is_named() -> None:
    with pytest.raises(InputError, match=r"unknown rule for absent classes 'zeros'.*Did you mean 'zero'"):
        check_absent("zeros")


def test_predicting_no_class_is_a_miss_and_not_a_way_out() -> None:
    confusion = confusion_matrix(torch.tensor([0, IGNORE]), torch.tensor([0, 0]), 1)
    assert confusion.tolist() == [[1, 1]]
    assert mean_iou(confusion) == mean_accuracy(confusion) == pixel_accuracy(confusion) == 0.5


def test_pixels_without_truth_take_no_part() -> None:
    confusion = confusion_matrix(torch.tensor([0, 1]), torch.tensor([0, IGNORE]), 2)
    assert mean_iou(confusion, "zero") == 1.0


def test_accuracies_by_hand() -> None:
    confusion = confusion_matrix(torch.tensor([0, 0, 0, 1, 0]), torch.tensor([0, 0, 0, 0, 1]), 3)
    assert mean_accuracy(confusion) == pytest.approx(0.375)
    assert pixel_accuracy(confusion) == pytest.approx(0.6)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_order_of_pixels_and_of_images_changes_nothing_and_perfect_is_1(seed: int) -> None:
    predicted, truth = drawn(seed)
    mixed = torch.randperm(54, generator=torch.Generator().manual_seed(seed))
    whole, parts, rest = (SemanticSegmentation("abcde") for _ in range(3))
    whole.update(predicted, truth)
    parts.update(predicted.flatten()[mixed[:20]], truth.flatten()[mixed[:20]])
    rest.update(predicted.flatten()[mixed[20:]], truth.flatten()[mixed[20:]])
    parts.merge(rest)
    assert torch.equal(whole.compute().confusion, parts.compute().confusion)
    perfect = confusion_matrix(truth, truth, 5)
    assert mean_iou(perfect) == mean_iou(perfect, "zero") == mean_accuracy(perfect) == pixel_accuracy(perfect) == 1.0


def test_small_integer_maps_do_not_overflow() -> None:
    labels = torch.arange(120, dtype=torch.int8)
    assert torch.equal(confusion_matrix(labels, labels, 120)[:, :120], torch.eye(120, dtype=torch.int64))


def test_summary_and_table() -> None:
    metric = SemanticSegmentation(["sky", "sea", "sand"])
    metric.update(torch.tensor([0, 0, 1]), torch.tensor([0, 0, 0]))
    found = metric.compute()
    assert found.summary() == {"pixels": 3, "classes": 1, "miou": 2 / 3, "macc": 2 / 3, "pacc": 2 / 3}
    assert found.summary("zero")["miou"] == pytest.approx(1 / 3)
    assert found.table() == [
        {"name": "sky", "pixels": 3, "iou": 2 / 3},
        {"name": "sea", "pixels": 0, "iou": 0.0},
    ]


def test_nothing_evaluated_is_none_in_the_summary() -> None:
    metric = SemanticSegmentation(["sky"])
    metric.update(torch.zeros(0, 4, dtype=torch.int64), torch.zeros(0, 4, dtype=torch.int64))
    assert json.loads(json.dumps(metric.compute().summary(), allow_nan=False))["miou"] is None
    assert metric.compute().table() == []


def test_unusable_input_is_refused_with_the_value() -> None:
    metric = SemanticSegmentation(["sky", "sea"])
    with pytest.raises(InputError, match=r"\(2, 2\) and \(3, 2\)"):
        metric.update(torch.zeros(2, 2, dtype=torch.int64), torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(InputError, match=r"true labels .* 255 was"):
        metric.update(torch.tensor([0]), torch.tensor([255]))
    with pytest.raises(InputError, match=r"predicted labels .* 2 was"):
        metric.update(torch.tensor([2]), torch.tensor([0]))
    with pytest.raises(InputError, match="merged"):
        metric.merge(SemanticSegmentation(["sky"]))
    with pytest.raises(InputError, match="empty"):
        SemanticSegmentation([])
