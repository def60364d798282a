from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from closeup.data.record import Record
from closeup.data.world import World
from closeup.errors import DataError, InputError
from closeup.models.clip import Clip
from closeup.predict import evaluate_segmentation, segment
from tiny_clips import picture


def test_against_iou_counted_by_hand(clip: Clip, tmp_path: Path) -> None:
    world = World(count=3, size=(64, 96))
    seen: list[tuple[int, int]] = []
    report = evaluate_segmentation(clip, world, size=64, on_progress=lambda *step: seen.append(step))
    shared, united = torch.zeros(len(world.names)), torch.zeros(len(world.names))
    true = torch.zeros(len(world.names))
    for index in range(3):
        record = world[index]
        assert record.label_map is not None
        guess = segment(clip, record.load(), world.names, size=64).label_map
        for label in range(len(world.names)):
            shared[label] += ((guess == label) & (record.label_map == label)).sum()
            united[label] += ((guess == label) | (record.label_map == label)).sum()
            true[label] += (record.label_map == label).sum()
    summary = report.summary()
    assert summary["miou"] == pytest.approx(float((shared / united)[true > 0].mean()), abs=1e-4)
    found = united > 0
    zero = evaluate_segmentation(clip, world, size=64, absent="zero")
    expected = float((shared / united)[found].mean())
    assert zero.summary()["miou"] == report.summary("zero")["miou"] == pytest.approx(expected, abs=1e-4)
    assert summary["miou"] != zero.summary()["miou"]
    assert (report.to_dict()["absent"], zero.to_dict()["absent"]) == ("ignore", "zero")
    assert summary["macc"] == pytest.approx(float((shared / true)[true > 0].mean()), abs=1e-4)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert json.loads(report.save(tmp_path / "report.json").read_text()) == json.loads(report.to_json())


class OneRecord:
    names = ("cat", "dog")
    things = (True, True)

    def __init__(self, record: Record) -> None:
        self.record = record

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int, /) -> Record:
        return self.record


def test_wrong_input_is_refused(clip: Clip) -> None:
    reader = OneRecord(Record("r", picture(20, 20).numpy(), (20, 20)))
    with pytest.raises(DataError, match="'r' has no label map"):
        evaluate_segmentation(clip, reader)
    with pytest.raises(InputError, match="3 words for 2 names"):
        evaluate_segmentation(clip, reader, words=["a", "b", "c"])
