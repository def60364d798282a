from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch

from closeup.data.record import Record
from closeup.data.world import World
from closeup.data.world.closeups import CloseUps
from closeup.data.world.probe import attribute_probe
from closeup.errors import InputError
from closeup.models.blend import blend
from closeup.models.clip import Clip
from closeup.predict import evaluate_regions
from closeup.predict.forgetting import evaluate_forgetting, measure
from closeup.predict.forgetting_report import Figure, Figures, ForgettingReport
from closeup.predict.whole_image import encode_whole, retrieval
from tiny_clips import vit_clip

SETTINGS: dict[str, Any] = {"templates": "simple", "size": 64, "close_ups": 12, "workers": 0}
SMALL = World("val", count=3, size=(64, 64))


@pytest.fixture(scope="module")
def pair() -> tuple[Clip, Clip]:
    return vit_clip(seed=1), vit_clip(seed=2)


@pytest.fixture(scope="module")
def report(pair: tuple[Clip, Clip]) -> ForgettingReport:
    return evaluate_forgetting(*pair, SMALL, **SETTINGS)


def test_regions_are_those_of_evaluate_regions(report: ForgettingReport, pair: tuple[Clip, Clip]) -> None:
    for side, clip in zip((report.before, report.after), pair, strict=True):
        found = {figure.name: figure.value for figure in side.figures if figure.task == "regions"}
        expected = evaluate_regions(clip, SMALL, templates="simple", size=64, workers=0).table()
        assert found == {f"{row['encoder']} {row['shape']}, {row['kind']}": row["top1"] for row in expected}
        assert side.fingerprint == clip.fingerprint


@torch.no_grad()
def test_the_worlds_questions_are_answered_one_by_one(report: ForgettingReport, pair: tuple[Clip, Clip]) -> None:
    clip = pair[0]
    hits: dict[str, list[bool]] = {}
    for question in attribute_probe(12, side=32):
        image = clip.encode_image(clip.preprocess(question.picture)[0][None])[0]
        best = int((clip.encode_text(question.choices) @ image).argmax())
        hits.setdefault(question.family, []).append(best == question.answer)
    found = {one.name: (one.count, one.value) for one in report.before.figures if one.task == "classification"}
    assert found == {name: (len(right), sum(right) / len(right)) for name, right in hits.items()}


def test_the_worlds_captions_are_those_of_close_ups(report: ForgettingReport, pair: tuple[Clip, Clip]) -> None:
    expected = retrieval(pair[0], encode_whole(pair[0], CloseUps(count=12, side=32)))
    found = {one.name: one.value for one in report.before.figures if one.task == "retrieval"}
    assert found["text to image R@1"] == pytest.approx(expected.text_to_image[0])
    assert found["image to text R@5"] == pytest.approx(expected.image_to_text[1])
    assert len(found) == 6


def test_a_model_forgets_nothing_against_itself(pair: tuple[Clip, Clip]) -> None:
    same = evaluate_forgetting(pair[0], pair[0], SMALL, **SETTINGS)
    assert set(same.gained.values()) == set(same.forgotten.values()) == {0.0}


def test_what_one_gained_the_other_lost(report: ForgettingReport) -> None:
    back = ForgettingReport(report.after, report.before)
    assert back.gained == {name: pytest.approx(-value) for name, value in report.gained.items()}
    assert back.forgotten == {name: pytest.approx(-value) for name, value in report.forgotten.items()}
    assert set(report.gained) == {"boxes, things", "boxes, stuff", "masks, things", "masks, stuff"}


def test_the_end_of_a_blend_has_the_figures_of_its_model(report: ForgettingReport, pair: tuple[Clip, Clip]) -> None:
    assert measure(blend(*pair, 1), SMALL, **SETTINGS).figures == report.after.figures


def made(**values: float) -> Figures:
    tasks = {"dense": "regions", "crop": "regions", "shape": "classification", "R@1": "retrieval", "R@5": "retrieval"}
    figures = [Figure(tasks[name.split()[0]], name, 10, value) for name, value in values.items()]
    return Figures("m", "f", tuple(figures))


def test_points_and_means() -> None:
    before = made(**{"dense boxes, things": 0.2, "crop boxes, things": 0.8, "shape": 0.9, "R@1": 0.5, "R@5": 0.7})
    after = made(**{"dense boxes, things": 0.7, "crop boxes, things": 0.7, "shape": 0.8, "R@1": 0.6, "R@5": 0.7})
    report = ForgettingReport(before, after)
    assert report.gained == {"boxes, things": pytest.approx(50)}
    assert report.forgotten == pytest.approx({"classification: shape": 10, "retrieval: R@1": -10, "retrieval: R@5": 0})
    assert report.summary()["forgotten"] == pytest.approx({"zero-shot classification": 10, "retrieval R@1": -10})
    assert [row["points"] for row in report.table()] == pytest.approx([50, -10, -10, 10, 0])


def test_a_report_is_plain_json(report: ForgettingReport, tmp_path: Path) -> None:
    stored = json.loads(report.save(tmp_path / "deep" / "report.json").read_text())
    assert stored == report.to_dict()
    assert stored["before"]["fingerprint"] == report.before.fingerprint
    assert stored["rows"] == report.table()


def test_two_different_measurements_are_not_compared(report: ForgettingReport) -> None:
    with pytest.raises(InputError, match="measured on different things"):
        ForgettingReport(report.before, made(shape=0.5))


class Labelled:
    """Pictures with a label, a caption, or neither."""

    names = ("red", "blue")
    things = (True, True)

    def __init__(self, *, labels: bool, captions: bool) -> None:
        self._labels, self._captions = labels, captions

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int, /) -> Record:
        image = PIL.Image.new("RGB", (40, 30), self.names[index % 2])
        labels = torch.tensor([index % 2]) if self._labels else None
        return Record(f"{index}", image, None, labels=labels, captions=(f"number {index}",) if self._captions else ())


@pytest.mark.parametrize(
    ("labels", "captions", "tasks"),
    [
        (True, True, {"classification", "retrieval"}),
        (True, False, {"classification"}),
        (False, True, {"retrieval"}),
    ],
)
def test_what_the_records_hold_is_measured(clip: Clip, labels: bool, captions: bool, tasks: set[str]) -> None:
    figures = measure(clip, Labelled(labels=labels, captions=captions), limit=4).figures
    assert {figure.task for figure in figures} == tasks
    assert all(figure.count == 4 for figure in figures)


def test_records_that_say_nothing_are_refused(clip: Clip) -> None:
    with pytest.raises(InputError, match="nothing can be gained or forgotten"):
        measure(clip, Labelled(labels=False, captions=False))
