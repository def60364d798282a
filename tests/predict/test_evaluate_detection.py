"""A detector measured: the same figures as by hand, whatever made the boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from closeup._types import Federated, Groups
from closeup.data.record import Record
from closeup.data.world import World
from closeup.errors import DataError, InputError
from closeup.evaluate import AveragePrecision
from closeup.heads.fvit_config import FVitConfig
from closeup.heads.rpn import Proposer, new_proposer
from closeup.heads.saved import Detector, new_detector
from closeup.match.detections import Detections, Suppression
from closeup.predict import (
    detect,
    detect_zero_shot,
    evaluate_detection,
    evaluate_zero_shot_detection,
    propose_boxes,
)
from closeup.predict.detection_truth import masks_of, truth_of
from closeup.predict.evaluate_detection import BoxSource
from tiny_clips import vit_clip
from tiny_towers import randomise

WORLD = World("val", count=4, size=(64, 96))


@pytest.fixture
def detector() -> Detector:
    small = {"channels": 16, "hidden": 16, "bins": 3, "convolutions": 1, "proposals": 40, "candidates": 100}
    torch.manual_seed(0)
    made = new_detector(
        vit_clip(layers=4), ["star", "circle"], [True, False], templates="simple", size=96, config=small
    )
    randomise(made.head, 0)
    made.head.eval()
    return made


def things() -> list[str]:
    return [name for name, thing in zip(WORLD.names, WORLD.things, strict=True) if thing]


def test_figures_are_those_of_detecting_record_by_record(detector: Detector) -> None:
    told: list[tuple[int, int]] = []
    report = evaluate_detection(detector, WORLD, workers=0, on_progress=lambda done, of: told.append((done, of)))
    metric, names = AveragePrecision(things()), things()
    for index in range(4):
        record = WORLD[index]
        assert record.boxes is not None
        assert record.labels is not None
        found = detect(detector, record.load(), names, threshold=0.01)
        kept = [row for row, label in enumerate(record.labels.tolist()) if WORLD.things[label]]
        labels = torch.tensor([names.index(WORLD.names[label]) for label in record.labels[kept].tolist()])
        metric.add(record.boxes[kept].float(), labels.long(), found.boxes, found.labels, found.scores)
    np.testing.assert_allclose(report.scores.ap, metric.compute().ap)
    assert told == [(done, 4) for done in range(1, 5)]
    assert report.novel == tuple(name != "circle" for name in names)
    base, every = metric.compute().mean([name == "circle" for name in names]), metric.compute().mean()
    assert report.summary()["all AP50"] == pytest.approx(every)
    assert (report.to_dict()["summary"]["base AP50"] is None) == bool(np.isnan(base))


def test_a_detector_that_is_always_right_scores_one(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    names, seen = things(), iter(range(4))

    def right(self: object, images: object, sizes: object, *_: object, **__: object) -> Sequence[Detections]:
        record = WORLD[next(seen)]
        assert record.boxes is not None
        assert record.labels is not None
        kept = [row for row, label in enumerate(record.labels.tolist()) if WORLD.things[label]]
        labels = torch.tensor([names.index(WORLD.names[label]) for label in record.labels[kept].tolist()]).long()
        return [Detections(record.boxes[kept].float(), labels, torch.ones(len(kept)))]

    monkeypatch.setattr(type(detector.head), "detect", right)
    report = evaluate_detection(detector, WORLD, workers=0)  # the canvas is as large as the picture
    assert report.summary()["all AP50"] == 1
    assert report.summary()["all AP"] == 1


@dataclass(frozen=True)
class Unlabelled:
    names: tuple[str, ...] = ("cat",)
    things: tuple[bool, ...] = (True,)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int, /) -> Record:
        return replace(WORLD[index], labels=None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"words": ["cat"]}, "1 words for 24 things"),
        ({"threshold": -1.0}, "threshold of -1"),
        ({"limit": 0}, "no records"),
    ],
)
def test_what_cannot_be_measured_is_said(detector: Detector, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate_detection(detector, WORLD, workers=0, **changes)
    with pytest.raises(DataError, match="no labelled boxes"):
        evaluate_detection(detector, Unlabelled(), workers=0)


def test_other_sentences_may_be_asked_for(detector: Detector) -> None:
    report = evaluate_detection(detector, WORLD, templates="vild-63", limit=1, workers=0)
    assert report.provenance.templates == "vild-63"


@pytest.fixture
def proposer() -> Proposer:
    torch.manual_seed(0)
    small = {"channels": 16, "proposals": 30, "candidates": 60}
    made = new_proposer(vit_clip(layers=4), (), (), templates="simple", size=96, config=small)
    randomise(made.head, 0)
    made.head.eval()
    return made


@pytest.mark.parametrize("source", ["truth", "found", "proposer"])
@pytest.mark.parametrize("how", ["dense", "crop"])
def test_a_clip_alone_is_measured_on_the_boxes_that_it_is_given(source: str, how: str, proposer: Proposer) -> None:
    clip, names = vit_clip(), things()
    given: BoxSource = proposer if source == "proposer" else "truth" if source == "truth" else "found"
    report = evaluate_zero_shot_detection(clip, WORLD, boxes=given, how=how, workers=0)
    metric = AveragePrecision(names)
    for index in range(4):
        record = WORLD[index]
        assert record.boxes is not None
        assert record.labels is not None
        kept = [row for row, label in enumerate(record.labels.tolist()) if WORLD.things[label]]
        true, logits = record.boxes[kept].float(), None
        boxes = true if source == "truth" else None
        if source == "proposer":
            proposed = propose_boxes(proposer, record.load())
            boxes, logits = proposed.boxes, proposed.logits
        found = detect_zero_shot(clip, record.load(), names, boxes=boxes, logits=logits, how=how, threshold=0.001)
        labels = torch.tensor([names.index(WORLD.names[label]) for label in record.labels[kept].tolist()])
        metric.add(true, labels.long(), found.boxes, found.labels, found.scores)
    np.testing.assert_allclose(report.scores.ap, metric.compute().ap)
    assert report.novel == tuple(name in World.novel for name in names)
    assert report.provenance.region_encoder == how


def test_true_boxes_leave_only_the_naming() -> None:
    """With one word for the one class that there is, every true box is right."""

    @dataclass(frozen=True)
    class OneClass:
        names: tuple[str, ...] = ("thing",)
        things: tuple[bool, ...] = (True,)

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int, /) -> Record:
            record = WORLD[index]
            assert record.labels is not None
            return replace(record, labels=torch.zeros_like(record.labels))

    report = evaluate_zero_shot_detection(vit_clip(), OneClass(), workers=0, suppression=Suppression(overlap=1.0))
    assert report.summary()["all AP"] == 1
    assert np.isnan(report.summary()["novel AP"])


def test_novel_words_of_a_clip_alone_are_told_apart_by_name() -> None:
    report = evaluate_zero_shot_detection(vit_clip(), WORLD, novel=("star",), limit=1, workers=0)
    assert [name for name, new in zip(things(), report.novel, strict=True) if new] == ["star"]
    folded = evaluate_zero_shot_detection(vit_clip(), WORLD, novel=("Star ",), limit=1, workers=0)
    assert folded.novel == report.novel
    with pytest.raises(InputError, match="'stra' is no thing of the data set"):
        evaluate_zero_shot_detection(vit_clip(), WORLD, novel=("stra",), workers=0)
    with pytest.raises(DataError, match="no labelled boxes"):
        evaluate_zero_shot_detection(vit_clip(), Unlabelled(), workers=0)


@dataclass(frozen=True)
class Marked:
    """The world as COCO or LVIS has pictures: with crowds, or with what was looked for."""

    lvis: bool
    names: tuple[str, ...] = tuple(things())
    things: tuple[bool, ...] = (True,) * len(things())

    @property
    def frequencies(self) -> tuple[str, ...]:
        """One kind each in turn."""
        return tuple("rcf"[place % 3] for place in range(len(self.names))) if self.lvis else ()

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int, /) -> Record:
        record = WORLD[index]
        assert record.labels is not None
        assert record.boxes is not None
        kept = torch.tensor([WORLD.things[label] for label in record.labels.tolist()])
        labels = torch.tensor([self.names.index(WORLD.names[label]) for label in record.labels[kept].tolist()]).long()
        boxes = record.boxes[kept].float()
        crowd = Groups(boxes[:1], labels[:1])
        made = Record(record.id, record.image, record.size, boxes=boxes[1:], labels=labels[1:])
        return replace(made, federated=Federated((0, 5), (1,))) if self.lvis else replace(made, groups=crowd)


@pytest.mark.parametrize("lvis", [False, True])
def test_crowds_and_what_was_looked_for_count_as_the_rules_have_it(detector: Detector, lvis: bool) -> None:
    reader = Marked(lvis)
    report = evaluate_detection(detector, reader, workers=0)
    metric = AveragePrecision(reader.names)
    threshold, limit = (1e-4, 300) if lvis else (0.01, 100)
    for index in range(4):
        record = reader[index]
        assert record.boxes is not None
        assert record.labels is not None
        found = detect(detector, record.load(), reader.names, threshold=threshold, limit=limit)
        boxes, labels, crowd = record.boxes, record.labels, [False] * len(record.boxes)
        if record.groups is not None:
            boxes, labels = torch.cat([boxes, record.groups.boxes]), torch.cat([labels, record.groups.labels])
            crowd += [True]
        metric.add(boxes, labels, found.boxes, found.labels, found.scores, crowd=crowd, federated=record.federated)
    scores = metric.compute()
    np.testing.assert_allclose(report.scores.ap, scores.ap)
    means = {f"{name} AP" for name in ("rare", "common", "frequent")} & set(report.summary())
    assert len(means) == (3 if lvis else 0)
    if lvis:
        rare = scores.mean([place % 3 == 0 for place in range(len(reader.names))], at50=False)
        assert report.summary()["rare AP"] == pytest.approx(rare, nan_ok=True)


def test_masks_are_measured_as_by_hand(detector: Detector) -> None:
    config = detector.head.config
    assert isinstance(config, FVitConfig)
    made = new_detector(
        detector.clip,
        detector.words,
        detector.novel,
        templates="simple",
        size=96,
        config={**config.to_dict(), "masks": True},
    )
    randomise(made.head, 0)
    made.head.eval()
    report = evaluate_detection(made, WORLD, masks=True, workers=0)
    metric, names = AveragePrecision(things(), masks=True), things()
    for index in range(4):
        record = WORLD[index]
        assert record.boxes is not None
        assert record.labels is not None
        assert record.masks is not None
        found = detect(made, record.load(), names, threshold=0.01)
        kept = [row for row, label in enumerate(record.labels.tolist()) if WORLD.things[label]]
        labels = torch.tensor([names.index(WORLD.names[label]) for label in record.labels[kept].tolist()])
        metric.add(
            record.boxes[kept].float(), labels.long(), found.boxes, found.labels, found.scores,
            masks=record.masks[kept], found_masks=found.masks,
        )  # fmt: skip
    np.testing.assert_allclose(report.scores.ap, metric.compute().ap)
    with pytest.raises(InputError, match="gives boxes and no masks"):
        evaluate_detection(detector, WORLD, masks=True, workers=0)
    with pytest.raises(DataError, match="has no masks"):
        evaluate_detection(made, Marked(lvis=False), masks=True, workers=0)


def test_a_group_of_stuff_is_nothing_to_find() -> None:
    box, mask = torch.tensor([[0.0, 0, 2, 2]]), torch.ones(1, 4, 4, dtype=torch.bool)
    groups = Groups(torch.cat([box, box + 1]), torch.tensor([0, 1]), mask.repeat(2, 1, 1))
    record = Record("a", "none.png", (4, 4), boxes=box, masks=mask, labels=torch.tensor([1]), groups=groups)
    truth = truth_of(record, {1: 0})
    assert truth.boxes.tolist() == [[0, 0, 2, 2], [1, 1, 3, 3]]
    assert truth.labels.tolist() == [0, 0]
    assert truth.crowd == (False, True)
    assert len(masks_of(record, {1: 0})) == 2
