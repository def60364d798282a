"""The verb protocol: official annotations in, files out that train and evaluate read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from closeup.data.open_vocabulary import COCO_BASE, COCO_NOVEL
from closeup.data.readable import open_album
from closeup.data.registry import open_reader
from closeup.heads.saved import load_detector
from closeup.recipes.run_detection import detector_words
from closeup.text import Vocabulary
from commands import Run, Write, files_below, write_photo
from goldens import SHARED
from open_vocabulary_files import SIDE, coco_document, lvis_document

LVIS = SHARED / "data" / "lvis_sample" / "lvis_val_100.json"
SHORT = ("--steps", "1", "--batch-size", "2", "--workers", "0", "--size", "64", "--preset", "tiny")


def write_photos(folder: Path, count: int) -> Path:
    for number in range(1, count + 1):
        write_photo(folder / f"{number:012}.png", (SIDE, SIDE), number)
    return folder


def lines(path: Path) -> tuple[str, ...]:
    return tuple(path.read_text("utf-8").splitlines())


def test_coco_from_the_official_file_to_a_detector(closeup: Run, write: Write, tmp_path: Path) -> None:
    document = coco_document(2, 8)
    write("instances_train2017.json", document)
    write_photos(tmp_path / "train2017", 8)
    ran = closeup("protocol", "ov-coco", "instances_train2017.json", "--out", "made", "--json")
    assert ran.code == 0, ran.err
    names = ["all.txt", "base.txt", "instances_train2017_all.json", "instances_train2017_base.json", "novel.txt"]
    assert files_below(tmp_path / "made") == names
    assert sorted(Path(name).name for name in ran.json["written"]) == names
    assert set(lines(tmp_path / "made" / "base.txt")) == set(COCO_BASE)
    assert set(lines(tmp_path / "made" / "novel.txt")) == set(COCO_NOVEL)
    line = "coco:made/instances_train2017_{}.json?images=../train2017"
    assert [f"{each}?images=../train2017" for each in ran.json["read_as"]] == [line.format("base"), line.format("all")]
    assert open_reader(line.format("all")).names == lines(tmp_path / "made" / "all.txt")
    for told in ran.json["files"]:
        content = document if told["file"] == "instances_train2017.json" else None
        content = content or json.loads((tmp_path / "made" / told["file"]).read_text())
        assert told["images"] == len(content["images"])
        assert told["boxes"] == len(content["annotations"])
        assert told["classes"] == len(content["categories"])
        assert told["classes with boxes"] == len({row["category_id"] for row in content["annotations"]})
    album = open_album(line.format("base"))
    told_words = detector_words(album, Vocabulary.from_file(tmp_path / "made" / "novel.txt").names)
    assert told_words == detector_words(album), "the reader knows them itself"
    assert {word for word, new in zip(*told_words, strict=True) if new} == set(COCO_NOVEL)
    trained = closeup(
        "train", "fvit", "--images", line.format("base"), "--novel", "made/novel.txt", "--out", "detector", *SHORT
    )
    assert trained.code == 0, trained.err
    detector = load_detector(tmp_path / "detector")
    assert [word for word, new in zip(album.names, detector.marks(album.names), strict=True) if new] == list(
        lines(tmp_path / "made" / "novel.txt")
    )
    measured = closeup(
        "evaluate", "detection", "--detector", "detector", "--data", line.format("all"), "--limit", "2", "--json"
    )
    assert measured.code == 0, measured.err


def test_lvis_from_the_official_file_to_words(closeup: Run, write: Write, tmp_path: Path) -> None:
    write("lvis_v1_train.json", lvis_document(2, 8))
    write_photos(tmp_path / "train2017", 8)
    ran = closeup("protocol", "ov-lvis", "lvis_v1_train.json", "--out", ".")
    assert ran.code == 0, ran.err
    assert "6 base and 3 novel classes" in ran.out
    assert files_below(tmp_path)[:4] == ["all.txt", "base.txt", "lvis_v1_train.json", "lvis_v1_train_base.json"]
    album = open_album("lvis:lvis_v1_train_base.json?images=train2017")
    assert album[0].federated is not None
    words, novel = detector_words(album)
    assert words == lines(tmp_path / "all.txt")
    assert tuple(word for word, new in zip(words, novel, strict=True) if new) == lines(tmp_path / "novel.txt")
    assert detector_words(album, Vocabulary.from_file(tmp_path / "novel.txt").names) == (words, novel)


@pytest.mark.skipif(not LVIS.is_file(), reason=f"no {LVIS}")
def test_real_lvis(closeup: Run, tmp_path: Path) -> None:
    ran = closeup("protocol", "ov-lvis", LVIS, "--out", "made", "--json")
    assert ran.code == 0, ran.err
    assert (len(ran.json["base"]), len(ran.json["novel"])) == (776, 454)
    assert [row["boxes"] for row in ran.json["files"]] == [977, 976]
    reader = open_reader("lvis:made/lvis_val_100_base.json?masks=no")
    assert Vocabulary.from_file(tmp_path / "made" / "all.txt").names == reader.names
    assert list(detector_words(reader)[1]).count(True) == 454


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ov-coco", "gone.json", "--out", "made"), "gone.json: no such annotation file"),
        (("ov-coco", "cut.json", "--out", "made"), "cut.json: not a json file"),
        (("ov-coco", "list.json", "--out", "made"), "holds a json list"),
        (("ov-coco", "captions.json", "--out", "made"), "no list 'categories'"),
        (("ov-coco", "lvis.json", "--out", "made"), "Use ov-lvis"),
        (("ov-coco", "few.json", "--out", "made"), "lacks 1 of the 65 classes of OV-COCO: 'scissors'"),
        (("ov-coco", "twice.json", "--out", "made"), "names the class 'dog' twice"),
        (("ov-lvis", "coco.json", "--out", "made"), "not one of r, c, f"),
        (("ov-coco", "coco.json", "--out", "cut.json"), "cut.json is a file"),
        (("ov-coco", "coco.json", "--out", "cut.json/deep"), "cut.json is a file"),
        (("ov-coco", "coco.json"), "--out"),
        (("ov-cocoa", "coco.json", "--out", "made"), "'ov-coco'"),
    ],
)
def test_a_mistake_is_told_in_a_line_and_leaves_nothing(
    closeup: Run, write: Write, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    coco = coco_document(1, 3)
    write("coco.json", coco)
    write("lvis.json", lvis_document(1, 3))
    write("few.json", {**coco, "categories": [row for row in coco["categories"] if row["name"] != "scissors"]})
    write("twice.json", {**coco, "categories": [*coco["categories"], {"id": 700, "name": "dog"}]})
    write("captions.json", {"images": coco["images"], "annotations": []})
    write("list.json", [])
    write("cut.json", "{")
    before = files_below(tmp_path)
    ran = closeup("protocol", *arguments)
    assert ran.code == 2, ran.out
    assert said in ran.err
    assert ran.err.count("\n") == 1
    assert files_below(tmp_path) == before
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["coco_base.json", "base.txt", "all.txt"])
def test_all_files_are_written_or_none(closeup: Run, write: Write, tmp_path: Path, name: str) -> None:
    write("coco.json", coco_document(1, 3))
    (tmp_path / "made" / name).mkdir(parents=True)
    ran = closeup("protocol", "ov-coco", "coco.json", "--out", "made")
    assert ran.code == 2
    assert f"{name} is a folder" in ran.err
    assert files_below(tmp_path) == ["coco.json"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(closeup: Run, write: Write, tmp_path: Path) -> None:
    write("coco.json", coco_document(1, 3))
    (tmp_path / "closed").mkdir(mode=0o500)
    ran = closeup("protocol", "ov-coco", "coco.json", "--out", "closed")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "closed" in ran.err
