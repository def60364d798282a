"""Average precision: pycocotools' own figures, LVIS's rules written out plainly, and what follows from either."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from closeup._types import Federated
from closeup.data.lvis import Lvis
from closeup.errors import InputError
from closeup.evaluate import detection
from closeup.evaluate.detection import LVIS_LIMIT, AveragePrecision
from goldens import SHARED

NAMES = ("cat", "dog", "tree", "snow")
LVIS = SHARED / "data" / "lvis_sample" / "lvis_val_100.json"
THRESHOLDS = [0.5 + 0.05 * step for step in range(10)]

Picture = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def boxes(count: int, rng: np.random.Generator) -> Tensor:
    corners = rng.uniform(0, 200, (count, 2))
    return torch.from_numpy(np.concatenate([corners, corners + rng.uniform(4, 120, (count, 2))], axis=1)).float()


def pictures(seed: int, count: int = 12) -> list[Picture]:
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


def encode(plane: Tensor) -> dict[str, Any]:
    return dict(coco_mask.encode(np.asfortranarray(plane.numpy().astype(np.uint8))))


def official(given: list[Picture], drawn: list[tuple[Tensor, Tensor]] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return pycocotools' AP and AP50 of each class, by boxes or by the masks drawn of them."""
    precision = evaluated(given, drawn).eval["precision"][:, :, :, 0, -1]
    table = precision.mean(axis=1)
    table[(precision < 0).any(axis=1)] = np.nan
    return table.mean(axis=0), table[0]


def evaluated(given: list[Picture], drawn: list[tuple[Tensor, Tensor]] | None = None) -> COCOeval:
    """Return pycocotools' evaluation, done."""
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
    if drawn is not None:
        for row, plane in zip(truth, torch.cat([true for true, _ in drawn]), strict=True):
            row |= {"segmentation": encode(plane), "area": float(plane.sum())}
        for guess, plane in zip(found, torch.cat([guesses for _, guesses in drawn]), strict=True):
            guess["segmentation"] = encode(plane)
            del guess["bbox"]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": number + 1, "height": 330, "width": 330} for number in range(len(given))],
            "categories": [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)],
            "annotations": truth,
        }
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(found), "bbox" if drawn is None else "segm")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run


def scored(given: list[Picture]) -> AveragePrecision:
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


@pytest.mark.parametrize("seed", range(4))
def test_the_twelve_figures_are_those_of_pycocotools(seed: int) -> None:
    given = pictures(seed)
    stats = evaluated(given).stats
    np.testing.assert_allclose(list(scored(given).figures().values()), np.where(stats < 0, np.nan, stats), atol=1e-6)


def test_the_twelve_figures_without_detections_or_objects() -> None:
    nothing, unlabelled, unscored = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0)
    one, label, score = torch.tensor([[0.0, 0, 40, 40]]), torch.tensor([0]), torch.ones(1)
    missed = scored([(one, label, nothing, unlabelled, unscored)]).figures()
    assert missed["ap"] == missed["ar100"] == missed["ap_medium"] == 0
    assert np.isnan([missed["ap_small"], missed["ar_large"]]).all()
    assert all(np.isnan(value) for value in scored([(nothing, unlabelled, one, label, score)]).figures().values())


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


def shapes(pictured: Tensor, rng: np.random.Generator) -> Tensor:
    """Return a mask of 330 x 330 in each box, some of its columns missing."""
    masks = torch.zeros(len(pictured), 330, 330, dtype=torch.bool)
    for plane, (left, top, right, bottom) in zip(masks, pictured.round().int().clamp(min=0).tolist(), strict=True):
        plane[top:bottom, left:right] = torch.from_numpy(rng.random((1, 330)) < 0.9)[:, left:right]
    return masks


@pytest.mark.parametrize("seed", range(2))
def test_figures_of_masks_are_those_of_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    given = pictures(seed)
    drawn = [(shapes(true, rng), shapes(found, rng)) for true, _, found, *_ in given]
    metric = AveragePrecision(NAMES, masks=True)
    for each, (masks, found_masks) in zip(given, drawn, strict=True):
        metric.add(*each, masks=masks, found_masks=found_masks)
    ap, ap50 = official(given, drawn)
    np.testing.assert_allclose(metric.compute().ap, ap, atol=1e-6)
    np.testing.assert_allclose(metric.compute().ap50, ap50, atol=1e-6)
    assert metric.compute().mean(at50=False) != scored(given).compute().mean(at50=False)


def test_masks_that_lack_are_said() -> None:
    true, labels, found, said, scores = pictures(0)[0]
    with pytest.raises(InputError, match="none and none masks"):
        AveragePrecision(NAMES, masks=True).add(true, labels, found, said, scores)
    masks = shapes(true, np.random.default_rng(0))
    with pytest.raises(InputError, match=f"{len(masks)} and {len(masks)} masks"):
        AveragePrecision(NAMES, masks=True).add(true, labels, found, said, scores, masks=masks, found_masks=masks)


def test_a_class_of_crowds_alone_has_no_figure() -> None:
    true, label, none = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([1]), torch.zeros(0, dtype=torch.long)
    metric = AveragePrecision(NAMES)
    metric.add(true, label, torch.zeros(0, 4), none, torch.zeros(0), crowd=[True])
    assert metric.compute().objects == (0, 0, 0, 0)
    assert np.isnan(metric.compute().ap50).all()
    metric.add(true, label - 1, true, label, torch.ones(1))
    assert metric.compute().objects == (1, 0, 0, 0)
    assert np.isnan(metric.compute().ap50[1:]).all()
    assert metric.compute().ap50[0] == 0


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


def overlap(one: list[float], other: list[float]) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    both = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (both - shared)


def by_lvis_rules(given: list[tuple[Picture, Federated]], label: int) -> list[float]:
    """Return a class's average precision at every threshold: the rules of LVIS in plain loops."""
    figures = []
    for threshold in THRESHOLDS:
        objects, judged = 0, []
        for (true, labels, found, said, scores), federated in given:
            here = [box for box, each in zip(true.tolist(), labels.tolist(), strict=True) if each == label]
            objects += len(here)
            if not here and label not in federated.absent:
                continue
            ranked = sorted(range(len(scores)), key=lambda place: -float(scores[place]))[:300]
            for place in (place for place in ranked if said[place] == label):
                fits = [(overlap(found[place].tolist(), box), number) for number, box in enumerate(here)]
                fit, number = max((each for each in fits if each[0] >= threshold), default=(0.0, -1))
                if fit:
                    here[number] = [-1.0, -1.0, -0.5, -0.5]  # taken: overlaps nothing
                if fit or label not in federated.partial:
                    judged.append((float(scores[place]), fit > 0))
        if not objects:
            return [float("nan")] * len(THRESHOLDS)
        judged.sort(key=lambda each: -each[0])
        hits = np.cumsum([hit for _, hit in judged])
        precision = [hit / (rank + 1) for rank, hit in enumerate(hits)]
        recall = [hit / objects for hit in hits]
        best = [
            max((p for p, r in zip(precision, recall, strict=True) if r >= step), default=0.0)
            for step in np.linspace(0, 1, 101)
        ]
        figures.append(float(np.mean(best)))
    return figures


def federated_pictures(seed: int, count: int = 12) -> list[tuple[Picture, Federated]]:
    rng = np.random.default_rng(seed + 100)
    made = []
    for picture in pictures(seed, count):
        marks = [tuple(np.flatnonzero(rng.random(4) < share).tolist()) for share in (0.4, 0.3)]
        absent = tuple(label for label in marks[0] if label not in picture[1].tolist())
        # Scores that never tie: equal ones of different pictures may be ranked in either order.
        scores = torch.from_numpy(rng.permutation(10_000)[: len(picture[4])] / 10_000)
        made.append(((*picture[:4], scores), Federated(absent, marks[1])))
    return made


def scored_by_lvis_rules(given: list[tuple[Picture, Federated]], names: tuple[str, ...] = NAMES) -> AveragePrecision:
    metric = AveragePrecision(names)
    for picture, federated in given:
        metric.add(*picture, federated=federated)
    return metric


@pytest.mark.parametrize("seed", range(6))
def test_figures_are_those_of_lvis_rules(seed: int) -> None:
    given = federated_pictures(seed)
    found = scored_by_lvis_rules(given).compute()
    expected = [by_lvis_rules(given, label) for label in range(4)]
    np.testing.assert_allclose(found.ap, np.mean(expected, axis=1), atol=1e-6)
    np.testing.assert_allclose(found.ap50, [each[0] for each in expected], atol=1e-6)
    unlike = scored([picture for picture, _ in given]).compute()
    assert not np.allclose(found.ap[:3], unlike.ap[:3]), "COCO's rules are others"


def one_cat(federated: Federated, label: int) -> float:
    """Return the mean AP50 of cat and dog, where one picture has each and the cat's has a better guess of a label."""
    cat, dog, far = (
        torch.tensor([[0.0, 0, 10, 10]]),
        torch.tensor([[0.0, 0, 20, 20]]),
        torch.tensor([[50.0, 50, 90, 90]]),
    )
    metric = AveragePrecision(NAMES)
    said = torch.tensor([0, label])
    metric.add(cat, torch.tensor([0]), torch.cat([cat, far]), said, torch.tensor([0.5, 0.9]), federated=federated)
    metric.add(dog, torch.tensor([1]), dog, torch.tensor([1]), torch.tensor([0.5]), federated=Federated())
    return metric.compute().mean()


def test_only_guesses_of_classes_that_were_looked_for_count() -> None:
    assert one_cat(Federated(), 0) == pytest.approx(0.75), "the cat's class is known to be there: half its guesses hold"
    assert one_cat(Federated(), 1) == pytest.approx(1.0), "nobody looked for dogs"
    assert one_cat(Federated(absent=(1,)), 1) == pytest.approx(0.75), "there is no dog"
    assert one_cat(Federated(partial=(0,)), 0) == pytest.approx(1.0), "it may be a cat that is not marked"
    assert one_cat(Federated(absent=(1,), partial=(1,)), 1) == pytest.approx(1.0)


def test_the_best_300_of_a_picture_count_whatever_their_classes() -> None:
    cat = torch.tensor([[0.0, 0, 10, 10]])
    for better, expected in ((LVIS_LIMIT - 1, 1.0), (LVIS_LIMIT, 0.0)):
        metric = AveragePrecision(NAMES)
        labels = torch.tensor([0] + [3] * better)
        scores = torch.tensor([0.1] + [0.9] * better)
        metric.add(cat, torch.tensor([0]), cat.repeat(better + 1, 1), labels, scores, federated=Federated())
        assert metric.compute().mean() == expected


@pytest.mark.parametrize("group", [1, 3])
def test_classes_may_be_scored_a_few_at_once(group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given = pictures(1)
    whole, lvis = scored(given).compute(), scored_by_lvis_rules(federated_pictures(1)).compute()
    monkeypatch.setattr(detection, "GROUP", group)
    np.testing.assert_array_equal(scored(given).compute().ap, whole.ap)
    np.testing.assert_array_equal(scored_by_lvis_rules(federated_pictures(1)).compute().ap, lvis.ap)


@pytest.mark.skipif(not LVIS.is_file(), reason=f"no {LVIS}")
def test_real_lvis_in_three_groups_of_classes() -> None:
    reader, rng = Lvis(LVIS, masks=False), np.random.default_rng(0)
    given = []
    for record in (reader[index] for index in range(len(reader))):
        assert record.boxes is not None
        assert record.labels is not None
        assert record.federated is not None
        found = (record.boxes + torch.from_numpy(rng.normal(0, 3, record.boxes.shape))).float().repeat(2, 1)
        found[:, 2:] = torch.maximum(found[:, 2:], found[:, :2] + 1)
        said = record.labels.repeat(2)
        known = [*record.labels.tolist(), *record.federated.absent, *record.federated.partial, 0]
        said[::3] = torch.from_numpy(rng.choice(known, len(said[::3])))
        scores = torch.from_numpy(rng.random(len(said)))
        given.append(((record.boxes, record.labels, found, said, scores), record.federated))
    result = scored_by_lvis_rules(given, reader.names).compute()
    expected = np.full(len(reader.names), np.nan)
    for label in np.flatnonzero(result.objects).tolist():
        expected[label] = np.mean(by_lvis_rules(given, label))
    np.testing.assert_allclose(result.ap, expected, atol=1e-6)
    for frequency in "rcf":
        group = [each == frequency for each in reader.frequencies]
        assert result.mean(group, at50=False) == pytest.approx(np.nanmean(expected[group]), abs=1e-6)


def test_the_twelve_figures_are_cocos_alone() -> None:
    with pytest.raises(InputError, match="no picture"):
        AveragePrecision(NAMES).figures()
    metric = AveragePrecision(NAMES)
    metric.add(*pictures(0, 1)[0], federated=Federated())
    with pytest.raises(InputError, match="LVIS"):
        metric.figures()


def test_pictures_are_scored_by_one_set_of_rules() -> None:
    picture, federated = federated_pictures(0)[0]
    for first, second, said in ((None, federated, "says"), (federated, None, "does not say")):
        metric = AveragePrecision(NAMES)
        metric.add(*picture, federated=first)
        with pytest.raises(InputError, match=f"Picture 1 {said} which classes were looked for"):
            metric.add(*picture, federated=second)
    with pytest.raises(InputError, match="label 7 is no index of the 4 names"):
        AveragePrecision(NAMES).add(*picture, federated=Federated(partial=(7,)))
