"""Average precision: pycocotools' own figures, and what follows from the rules."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from closeup.errors import InputError
from closeup.evaluate.detection import AveragePrecision

NAMES = ("cat", "dog", "tree", "snow")


def boxes(count: int, rng: np.random.Generator) -> Tensor:
    corners = rng.uniform(0, 200, (count, 2))
    return torch.from_numpy(np.concatenate([corners, corners + rng.uniform(4, 120, (count, 2))], axis=1)).float()


def pictures(seed: int, count: int = 12) -> list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """Return pictures whose detections are near the truth, doubled, wrong, or of nothing; no snow is ever true."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        true = boxes(int(rng.integers(0, 6)), rng)
        labels = torch.from_numpy(rng.integers(0, 3, len(true)))
        near = true + torch.from_numpy(rng.normal(0, 4, true.shape)).float()
        near[:, 2:] = torch.maximum(near[:, 2:], near[:, :2] + 1)
        found = torch.cat([near, near[:2], boxes(3, rng)])
        said = torch.cat([labels, labels[:2], torch.from_numpy(rng.integers(0, 4, 3))])
        said[: len(said) // 4] = torch.from_numpy(rng.integers(0, 4, len(said) // 4))
        made.append((true, labels, found, said, torch.from_numpy(np.round(rng.uniform(0, 1, len(found)), 2))))
    return made


def official(given: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]) -> tuple[np.ndarray, np.ndarray]:
    """Return pycocotools' AP and AP50 of each class."""
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for number, (true, labels, guesses, said, scores) in enumerate(given, start=1):
        for box, label in zip(true.tolist(), labels.tolist(), strict=True):
            sides = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            row = {"image_id": number, "category_id": label + 1, "bbox": sides, "area": sides[2] * sides[3]}
            truth.append(row | {"id": len(truth) + 1, "iscrowd": 0})
        for box, label, score in zip(guesses.tolist(), said.tolist(), scores.tolist(), strict=True):
            sides = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            found.append({"image_id": number, "category_id": label + 1, "bbox": sides, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": number + 1} for number in range(len(given))],
            "categories": [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)],
            "annotations": truth,
        }
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(found), "bbox")
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"][:, :, :, 0, -1]
    table = precision.mean(axis=1)
    table[(precision < 0).any(axis=1)] = np.nan
    return table.mean(axis=0), table[0]


def scored(given: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]) -> AveragePrecision:
    metric = AveragePrecision(NAMES)
    for each in given:
        metric.add(*each)
    return metric


@pytest.mark.parametrize("seed", range(4))
def test_figures_are_those_of_pycocotools(seed: int) -> None:
    given = pictures(seed)
    found, (ap, ap50) = scored(given).compute(), official(given)
    np.testing.assert_allclose(found.ap, ap, atol=1e-6)
    np.testing.assert_allclose(found.ap50, ap50, atol=1e-6)
    assert np.isnan(found.ap50[3]), "no snow is true"
    assert found.mean() == pytest.approx(np.nanmean(ap50))
    assert found.mean([True, False, True, True], at50=False) == pytest.approx((ap[0] + ap[2]) / 2)


def test_what_is_true_and_found_alike_scores_one() -> None:
    given = [(true, labels, true, labels, torch.ones(len(true))) for true, labels, *_ in pictures(0)]
    found = scored(given).compute()
    np.testing.assert_allclose(found.ap[:3], 1.0)
    assert found.objects == tuple(torch.cat([labels for _, labels, *_ in given]).bincount(minlength=4).tolist())


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_pictures_may_come_in_any_order(seed: int) -> None:
    given = pictures(seed, 5)
    one, other = scored(given).compute(), scored(given[::-1]).compute()
    # Equal scores of different pictures are ranked by the picture: rounded scores may tie.
    distinct = torch.unique(torch.cat([each[4] for each in given]), return_counts=True)[1].max() == 1
    if distinct:
        np.testing.assert_allclose(one.ap, other.ap)


def test_ignored_boxes_and_crowds_are_no_misses() -> None:
    true, labels = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]]), torch.tensor([0, -1])
    none = torch.zeros(0, 4)
    metric = AveragePrecision(NAMES)
    metric.add(true, labels, true[:1], labels[:1], torch.ones(1))
    assert metric.compute().objects == (1, 0, 0, 0)
    assert metric.compute().mean() == 1
    metric.add(true[1:], torch.tensor([0]), none, torch.zeros(0, dtype=torch.long), torch.zeros(0), crowd=[True])
    assert metric.compute().mean() == 1


def test_nothing_found_is_zero_and_nothing_true_is_no_figure() -> None:
    none, nobody = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
    missed = AveragePrecision(NAMES)
    missed.add(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([1]), none, nobody, torch.zeros(0))
    assert missed.compute().mean() == 0
    empty = AveragePrecision(NAMES)
    empty.add(none, nobody, torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([1]), torch.ones(1))
    assert np.isnan(empty.compute().mean())


def test_what_does_not_fit_is_said() -> None:
    true, label = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([1])
    with pytest.raises(InputError, match="label 4 is no index of the 4 names"):
        AveragePrecision(NAMES).add(true, label + 3, true, label, torch.ones(1))
    with pytest.raises(InputError, match="1 true boxes with 2 labels"):
        AveragePrecision(NAMES).add(true, torch.tensor([1, 2]), true, label, torch.ones(1))
    with pytest.raises(InputError, match="no picture"):
        AveragePrecision(NAMES).compute()
