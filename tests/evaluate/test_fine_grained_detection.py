"""FG-OVD's measures of a detector: the official figures, a plain loop, and what follows from the definitions."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from closeup.errors import InputError
from closeup.evaluate.described_objects import Answer, Caption, Objects
from closeup.evaluate.fine_grained_detection import caption_precision, find_objects
from closeup.geometry import xywh_to_xyxy
from goldens import Golden, cases

FIGURES = {
    "ap": "map",
    "ap50": "map_50",
    "ap75": "map_75",
    "ap_small": "map_small",
    "ap_medium": "map_medium",
    "ap_large": "map_large",
    "ar1": "mar_1",
    "ar10": "mar_10",
    "ar100": "mar_100",
    "ar_small": "mar_small",
    "ar_medium": "mar_medium",
    "ar_large": "mar_large",
}


def truth(golden: Golden) -> tuple[list[Objects], list[list[int]]]:
    """Return the objects of every image, and the ids of their annotations."""
    document = json.loads(str(golden.arrays["in/dataset_json"]))
    rows = defaultdict(list)
    for row in document["annotations"]:
        rows[row["image_id"]].append(row)
    objects = [
        Objects(
            image=image["file_name"],
            boxes=xywh_to_xyxy(torch.tensor([row["bbox"] for row in rows[image["id"]]]).reshape(-1, 4)),
            right=tuple(row["category_id"] for row in rows[image["id"]]),
            wrong=tuple(tuple(row["neg_category_ids"]) for row in rows[image["id"]]),
        )
        for image in document["images"]
    ]
    return objects, [[row["id"] for row in rows[image["id"]]] for image in document["images"]]


def answers(golden: Golden) -> list[Answer]:
    given = json.loads(str(golden.arrays["in/predictions_json"]))
    found = [
        Answer(row["image_filepath"], tuple(row["vocabulary"]), tensor(row["boxes"]), torch.tensor(row["total_scores"]))
        for row in given
    ]
    for answer, row in zip(found, given, strict=True):
        assert answer.labels() == row["labels"]
        assert torch.equal(answer.best(), torch.tensor(row["scores"]))
    return found


def tensor(rows: list[Any]) -> Tensor:
    return torch.tensor(rows).reshape(-1, 4)


@pytest.mark.parametrize("golden", cases("fgovd_ranks"))
def test_ranks_are_fg_ovds(golden: Golden) -> None:
    objects, ids = truth(golden)
    found = find_objects(objects, answers(golden), golden.config["n_neg"], unasked="skip")
    ranked = found.ranks()
    assert [ids[place][row] for place, row in found.places] == golden["out/metrics/annotation_ids"].tolist()
    assert torch.equal(ranked.ranks, golden["out/metrics/ranks"])
    assert torch.equal(found.scores, golden["out/metrics/total_scores"])
    assert torch.equal(found.found, found.scores.any(dim=1))
    assert ranked.mean == float(golden["out/metrics/mean"])
    assert ranked.median("fg-ovd") == float(golden["out/metrics/median"])
    assert (ranked.left_out, found.unasked) == (2, 3)


@pytest.mark.parametrize("golden", cases("fgovd_ranks"))
def test_objects_that_were_not_asked_for_rank_last(golden: Golden) -> None:
    objects, _ = truth(golden)
    negatives = golden.config["n_neg"]
    skipped = find_objects(objects, answers(golden), negatives, unasked="skip").ranks().ranks.tolist()
    counted = find_objects(objects, answers(golden), negatives).ranks().ranks.tolist()
    assert sorted(counted) == sorted([*skipped, *[negatives + 1] * 3])


@pytest.mark.parametrize("golden", cases("fgovd_ranks"))
@pytest.mark.parametrize(("name", "thin", "unasked"), [("map", True, "skip"), ("map_no_nms", False, "skip-images")])
def test_average_precision_is_fg_ovds(golden: Golden, name: str, thin: bool, unasked: str) -> None:
    objects, _ = truth(golden)
    found = caption_precision(objects, answers(golden), golden.config["n_neg"], thin=thin, unasked=unasked)
    assert set(found.figures) == set(FIGURES)
    theirs = {ours: float(golden[f"out/{name}/{official}"]) for ours, official in FIGURES.items()}
    assert found.figures == pytest.approx(
        {figure: math.nan if value == -1 else value for figure, value in theirs.items()}, abs=1e-6, nan_ok=True
    )
    assert found.images == int(golden[f"out/{name}/n_images"])


@pytest.mark.parametrize("golden", cases("fgovd_ranks"))
def test_average_precision_is_lower_where_what_was_not_asked_for_counts(golden: Golden) -> None:
    objects, _ = truth(golden)
    found = {
        rule: caption_precision(objects, answers(golden), golden.config["n_neg"], unasked=rule)
        for rule in ("skip", "skip-images", "count")
    }
    classes = {"skip": 7, "skip-images": 8, "count": 10}  # captions that are right for some object that counts
    assert {rule: each.objects for rule, each in found.items()} == {"skip": 8, "skip-images": 9, "count": 11}
    for rule, each in found.items():
        assert each.figures["ap"] == pytest.approx(found["skip"].figures["ap"] * 7 / classes[rule])


def drawn(seed: int, count: int = 6) -> tuple[list[Objects], list[Answer]]:
    """Return images with one to three objects and answers that are near them, doubled or elsewhere."""
    rng = np.random.default_rng(seed)
    objects, given = [], []
    for image in range(count):
        corners = rng.uniform(0, 200, (int(rng.integers(1, 4)), 2))
        boxes = np.concatenate([corners, corners + rng.uniform(20, 90, corners.shape)], axis=1)
        captions = [tuple(f"{image}-{row}-{place}" for place in range(4)) for row in range(len(boxes))]
        wrong: tuple[tuple[Caption, ...], ...] = tuple(each[1:] for each in captions)
        objects.append(Objects(str(image), torch.tensor(boxes), tuple(each[0] for each in captions), wrong))
        for row, box in enumerate(boxes):
            if rng.random() < 0.2:
                continue
            near = box + rng.normal(0, 6, (5, 4))
            far = box[None] + rng.uniform(60, 300, (2, 1))
            guesses = torch.tensor(np.concatenate([near, far]))
            scores = torch.tensor(rng.uniform(-1, 1, (len(guesses), 4)).round(1))
            given.append(Answer(str(image), captions[row], guesses, scores))
    return objects, given


def overlap(one: list[float], other: list[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    total = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / (total - width * height)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_ranks_agree_with_a_plain_loop(seed: int) -> None:
    objects, given = drawn(seed)
    given = [
        # Distinct scores: which of two equal boxes is thinned out is nobody's rule.
        Answer(each.image, each.captions, each.boxes, each.scores + torch.arange(len(each.boxes))[:, None] * 1e-3)
        for each in given
    ]
    expected = []
    for image in objects:
        for box, right in zip(image.boxes.tolist(), image.right, strict=True):
            rows = [each for each in given if (each.image, each.captions[0]) == (image.image, right)]
            rank = 4
            if rows:
                scored = sorted(
                    zip(rows[0].scores.tolist(), rows[0].boxes.tolist(), strict=True), key=lambda r: -max(r[0])
                )
                kept: list[tuple[list[float], list[float]]] = []
                for scores, guess in scored:
                    if all(overlap(guess, other) <= 0.5 for _, other in kept):
                        kept.append((scores, guess))
                here = [scores for scores, guess in kept if overlap(guess, box) > 0.5]
                rank = sum(each >= here[0][0] for each in here[0]) if here else 4
            expected.append(rank)
    assert find_objects(objects, given, 3).ranks().ranks.tolist() == expected


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_the_order_of_images_and_answers_changes_nothing(seed: int) -> None:
    objects, given = drawn(seed)
    one, other = (find_objects(objects, each, 3).ranks().ranks for each in (given, given[::-1]))
    assert torch.equal(one, other)
    assert sorted(find_objects(objects[::-1], given, 3).ranks().ranks.tolist()) == sorted(one.tolist())
    assert caption_precision(objects, given, 3).figures["ap"] == pytest.approx(
        caption_precision(objects[::-1], given[::-1], 3).figures["ap"]
    )


def test_perfect_is_one_and_a_detector_that_cannot_tell_is_nothing() -> None:
    objects, _ = drawn(3)
    for scores, rank, precision in (([0.9, 0.1, 0.2, 0.3], 1.0, 1.0), ([0.5] * 4, 4.0, 0.0)):
        given = [
            Answer(image.image, (right, *wrong), image.boxes[row : row + 1], torch.tensor([scores]))
            for image in objects
            for row, (right, wrong) in enumerate(zip(image.right, image.wrong, strict=True))
        ]
        assert find_objects(objects, given, 3).ranks().mean == rank
        found = caption_precision(objects, given, 3)
        assert found.figures["ap"] == precision
        assert found.summary()["objects"] == sum(len(image.right) for image in objects)
        assert found.summary()["ap_large"] == (None if np.isnan(found.figures["ap_large"]) else precision)


def test_an_answer_without_boxes_is_an_answer() -> None:
    objects = [Objects("a", tensor([[0.0, 0, 10, 10]]), (1,), ((2, 3),))]
    empty = [Answer("a", (1, 2, 3), torch.zeros(0, 4), torch.zeros(0, 3))]
    for rule in ("count", "skip"):
        found = find_objects(objects, empty, 2, unasked=rule)
        assert (found.ranks().ranks.tolist(), found.unasked, found.found.tolist()) == ([3], 0, [False])
        assert caption_precision(objects, empty, 2, unasked=rule).figures["ap"] == 0
    assert find_objects(objects, [], 2, unasked="skip").ranks().summary()["mean_rank"] is None
    with pytest.raises(InputError, match="1 were not asked for"):
        caption_precision(objects, [], 2, unasked="skip")
    assert caption_precision(objects, [], 2).figures["ap"] == 0


def test_what_does_not_fit_is_said() -> None:
    objects = [Objects("a", tensor([[0.0, 0, 10, 10]]), (1,), ((2, 3),))]
    good = Answer("a", (1, 2, 3), torch.zeros(0, 4), torch.zeros(0, 3))
    with pytest.raises(InputError, match="1 objects, 2 right captions"):
        Objects("a", tensor([[0.0, 0, 10, 10]]), (1, 2), ((2, 3),))
    with pytest.raises(InputError, match="0 boxes, 2 captions"):
        Answer("a", (1, 2), torch.zeros(0, 4), torch.zeros(0, 3))
    with pytest.raises(InputError, match="not a number"):
        Answer("a", (1,), torch.zeros(1, 4), torch.full((1, 1), math.nan))
    with pytest.raises(InputError, match="negatives is 0"):
        find_objects(objects, [], 0)
    with pytest.raises(InputError, match=r"'skipp'.*Did you mean 'skip'"):
        find_objects(objects, [good], 2, unasked="skipp")
    with pytest.raises(InputError, match="Unknown rule"):
        find_objects(objects, [good], 2, unasked="skip-images")
    with pytest.raises(InputError, match="two answers for 1"):
        find_objects(objects, [good, good], 2)
    with pytest.raises(InputError, match="answer for 1 in image 'b'"):
        find_objects(objects, [Answer("b", (1, 2, 3), good.boxes, good.scores)], 2)
    with pytest.raises(InputError, match=r"first 2 are \[2, 3\]"):
        find_objects(objects, [Answer("a", (1, 3, 2), good.boxes, good.scores)], 2)
    with pytest.raises(InputError, match="2 images have 1 names"):
        find_objects(objects * 2, [good], 2)
