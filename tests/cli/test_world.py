from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest
import torch

from closeup.data.registry import open_reader
from closeup.data.world import World
from commands import Run, files_below


def test_show_draws_a_sheet(closeup: Run, tmp_path: Path) -> None:
    ran = closeup("world", "show", "--count", "2", "--size", "64", "--out", tmp_path / "deep" / "world.png")
    assert ran.code == 0
    assert "val-0-000001" in ran.out
    assert str(tmp_path / "deep" / "world.png") in ran.out
    with PIL.Image.open(tmp_path / "deep" / "world.png") as sheet:
        assert min(sheet.size) > 64
    assert files_below(tmp_path) == ["deep/world.png"]


def test_show_tells_the_truth_as_json(closeup: Run) -> None:
    told = closeup("world", "show", "--count", "1", "--first", "3", "--size", "64", "--truth", "--json").json
    record = World("val", count=4, size=(64, 64))[3]
    assert told["scenes"][0]["captions"] == list(record.captions)
    assert record.boxes is not None
    assert [region["box"] for region in told["scenes"][0]["regions"]] == record.boxes.tolist()


@pytest.mark.parametrize("form", ["coco", "ade20k", "fgovd"])
def test_export_can_be_read_again(closeup: Run, tmp_path: Path, form: str) -> None:
    folder = tmp_path / "world"
    ran = closeup("world", "export", folder, "--form", form, "--count", "2", "--size", "64", "--json")
    assert ran.code == 0
    assert ran.json["scenes"] == 2
    world = World("val", count=2, size=(64, 64))
    assert len(ran.json["read_as"]) == {"coco": 3, "ade20k": 1, "fgovd": 8}[form]
    for spec in ran.json["read_as"]:
        reader = open_reader(spec)
        if form == "fgovd":
            assert len(reader) <= 2  # scenes without a large thing are left out
            continue
        assert len(reader) == 2
        read, drawn = reader[0].label_map, world[0].label_map
        if spec.startswith(("coco-panoptic", "labelmaps")):
            assert read is not None
            assert drawn is not None
            assert torch.equal(read, drawn)


def test_the_world_is_a_kind_of_data() -> None:
    reader = open_reader("world?count=3&size=64", "test")
    assert len(reader) == 3
    assert reader[2].captions == World("test", count=3, size=(64, 64))[2].captions
