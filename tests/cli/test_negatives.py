"""The verb negatives: right captions in, FG-OVD files out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from closeup.data.fgovd import BENCHMARKS, FgOvd
from closeup.data.record import iterate
from closeup.data.registry import open_reader
from closeup.data.world.lexicon import WORLD
from commands import Run, Write, files_below

CAPTIONS = ("a red wool hat with a blue glass bead", "the left striped mug", "the man", "a transparent glass vase")


def captioned() -> dict[str, Any]:
    """Four regions in two pictures, as RefCOCO's are in COCO's form."""
    return {
        "images": [
            {"id": 31, "file_name": "train2014/COCO_train2014_000000000031.jpg", "height": 40, "width": 60},
            {"id": 7, "file_name": "train2014/COCO_train2014_000000000007.jpg", "height": 40, "width": 60},
        ],
        "annotations": [
            {"id": number, "image_id": (31, 7)[number // 3], "bbox": [number, 2, 10, 20], "caption": caption}
            for number, caption in enumerate(CAPTIONS)
        ],
    }


def rights(path: Path) -> list[tuple[str, str]]:
    return [(record.id, one.right) for record in iterate(FgOvd(path)) for one in record.descriptions]


def test_captions_become_every_benchmark(closeup: Run, write: Write, tmp_path: Path) -> None:
    write("refs.json", captioned())
    ran = closeup("negatives", "refs.json", "--out", "made", "--json")
    assert ran.code == 0, ran.err
    assert files_below(tmp_path / "made") == sorted(f"{name}.json" for name in BENCHMARKS)
    hat, mug, man, vase = (("31", CAPTIONS[0]), ("31", CAPTIONS[1]), ("31", CAPTIONS[2]), ("7", CAPTIONS[3]))
    expected = {
        "shuffle_negatives": [hat, mug, man, vase],
        "3_attributes": [hat],
        "2_attributes": [hat, vase],
        "1_attributes": [hat, mug, vase],
        "color": [hat],
        "material": [hat, vase],
        "pattern": [mug],
        "transparency": [vase],
    }
    for name, described in expected.items():
        assert sorted(rights(tmp_path / "made" / f"{name}.json")) == sorted(described), name
    assert [row["regions"] for row in ran.json["files"]] == [len(each) for each in expected.values()]
    assert [row["left_out"] for row in ran.json["files"]] == [4 - len(each) for each in expected.values()]
    assert [row["benchmark"] for row in ran.json["files"]] == [each.title for each in BENCHMARKS.values()]
    reader = open_reader(ran.json["read_as"][3] + "&images=none")
    assert reader[0].image == Path("train2014/COCO_train2014_000000000031.jpg")
    assert {len(one.wrong) for record in iterate(reader) for one in record.descriptions} == {8, 10}


def test_same_seed_same_files_whatever_else_is_made(closeup: Run, write: Write, tmp_path: Path) -> None:
    write("refs.json", captioned())
    closeup("negatives", "refs.json", "--out", "all")
    closeup("negatives", "refs.json", "--out", "one", "--changes", "1", "1")
    closeup("negatives", "refs.json", "--out", "other", "--changes", "1", "--seed", "5", "--count", "3")
    assert files_below(tmp_path / "one") == ["1_attributes.json"]
    one, every, other = (tmp_path / name / "1_attributes.json" for name in ("one", "all", "other"))
    assert one.read_bytes() == every.read_bytes()
    assert other.read_bytes() != every.read_bytes()
    assert {len(one.wrong) for record in iterate(FgOvd(other)) for one in record.descriptions} == {3}


def test_fgovd_files_give_others(closeup: Run, write: Write, tmp_path: Path) -> None:
    write("refs.json", captioned())
    closeup("negatives", "refs.json", "--out", "made", "--changes", "1")
    for source in ("fgovd:made?split=1_attributes", "made/1_attributes.json"):
        ran = closeup("negatives", source, "--out", "again", "--changes", "2", "trivial")
        assert ran.code == 0, ran.err
        assert "Medium" in ran.out
        assert "fgovd:again?split=2_attributes" in ran.out
        assert len(rights(tmp_path / "again" / "2_attributes.json")) == 2
        assert len(rights(tmp_path / "again" / "shuffle_negatives.json")) == 3


def test_the_world_is_drawn(closeup: Run, tmp_path: Path) -> None:
    ran = closeup("negatives", "world?count=3&size=128", "--out", "made", "--changes", "1", "color", "--json")
    assert ran.code == 0, ran.err
    assert [row["left_out"] for row in ran.json["files"]] == [0, 0]
    reader = open_reader(ran.json["read_as"][0])
    assert reader[0].load().size == (128, 128)
    for record in iterate(reader):
        for one in record.descriptions:
            assert len(one.wrong) == 10
            assert all(len(WORLD.find(text)) == 4 for text in (one.right, *one.wrong))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gone.json",), "gone.json: no such annotation file"),
        (("cut.json",), "not a json file"),
        (("coco.json",), "nor 'caption'"),
        (("world?count=2&size=32",), "none of its 0 captions"),
        (("refs.json", "--count", "0"), "--count 0"),
        (("refs.json", "--seed", "-1"), "--seed -1"),
        (("refs.json", "--changes", "4"), "--changes"),
        (("refs.json", "--lexicon", "coco"), "--lexicon"),
        (("plain.json",), "none of its 1 captions names attributes enough"),
        (("refs.json", "--out", "cut.json"), "cut.json is a file"),
        (("refs.json",), "--out"),
        ((".", "--out", "made"), "no images"),
        (("made/1_attributes.json", "--out", "made", "--changes", "1"), "would write over made/1_attributes.json"),
        (("fgovd:made", "--out", "other"), "split=1_attributes"),
        (("coco:refs.json?images=none", "--out", "other"), "no list 'categories'"),
    ],
)
def test_a_mistake_is_told_in_a_line_and_leaves_nothing(
    closeup: Run, write: Write, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    document = captioned()
    write("refs.json", document)
    write("cut.json", "{")
    write("plain.json", {**document, "annotations": [{**document["annotations"][2]}]})
    bare = [{key: value for key, value in row.items() if key != "caption"} for row in document["annotations"]]
    write("coco.json", {**document, "annotations": bare, "categories": []})
    closeup("negatives", "refs.json", "--out", "made", "--changes", "1")
    before = files_below(tmp_path)
    told = arguments if "--out" in arguments or said == "--out" else (*arguments, "--out", "fresh")
    ran = closeup("negatives", *told)
    assert ran.code == 2, ran.out
    assert said in ran.err
    assert ran.err.count("\n") == 1
    assert files_below(tmp_path) == before


def test_regions_without_captions_are_told(closeup: Run, write: Write, tmp_path: Path) -> None:
    document = captioned()
    rows = [{**row, "category_id": 1} for row in document["annotations"]]
    write("coco.json", {**document, "annotations": rows, "categories": [{"id": 1, "name": "thing"}]})
    ran = closeup("negatives", "coco:coco.json?images=none", "--out", "made")
    assert ran.code == 2
    assert "its regions have no captions" in ran.err
    assert json.loads((tmp_path / "coco.json").read_text())


def test_help_shows_commands(closeup: Run) -> None:
    told = closeup("negatives", "--help").out
    assert told.count("closeup negatives ") >= 3
    assert "FG-OVD" in told
