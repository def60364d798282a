"""Karpathy's splits, on a small file of their form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from closeup.data.karpathy import Karpathy
from closeup.data.record import Reader, iterate
from closeup.data.registry import open_reader
from closeup.errors import DataError, InputError

SPLITS = ("train", "restval", "test", "val", "restval", "train", "test")


def a_row(number: int, split: str, sentences: int = 6) -> dict[str, Any]:
    year = "train2014" if split == "train" else "val2014"
    return {
        "filepath": year,
        "filename": f"COCO_{year}_{number:012d}.jpg",
        "cocoid": number,
        "imgid": number,
        "split": split,
        "sentids": list(range(sentences)),
        "sentences": [{"raw": f" Sentence {each} of {number}. ", "tokens": ["x"]} for each in range(sentences)],
    }


def written(folder: Path, rows: object) -> Path:
    path = folder / "dataset_coco.json"
    path.write_text(json.dumps({"images": rows, "dataset": "coco"}), encoding="utf-8")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path, [a_row(number, split) for number, split in enumerate(SPLITS)])


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ("split=test", [2, 6]),
        ("split=val", [3]),
        ("split=train", [0, 1, 4, 5]),
        ("split=train&restval=keep", [0, 1, 4, 5]),
        ("split=train&restval=skip", [0, 5]),
        ("split=restval", [1, 4]),
        ("split=restval&restval=skip", [1, 4]),
        ("split=train&count=3", [0, 1, 4]),
        ("split=test&count=5000", [2, 6]),
    ],
)
def test_splits_are_those_of_the_file(file: Path, options: str, numbers: list[int]) -> None:
    for path in (file, file.parent):
        reader = open_reader(f"karpathy:{path}?{options}&images=none")
        assert isinstance(reader, Reader)
        assert [record.id for record in iterate(reader)] == [str(number) for number in numbers]
        for record, number in zip(iterate(reader), numbers, strict=True):
            assert record.captions == tuple(f"Sentence {each} of {number}." for each in range(5))
            assert record.boxes is None


@pytest.mark.parametrize(
    "place",
    [
        "val2014/COCO_val2014_000000000002.jpg",
        "images/val2014/COCO_val2014_000000000002.jpg",
        "train2017/000000000002.jpg",
        "val2017/000000000002.jpg",
    ],
)
def test_pictures_of_2014_are_found_in_2017_too(file: Path, place: str) -> None:
    (file.parent / place).parent.mkdir(parents=True)
    PIL.Image.new("RGB", (5, 4)).save(file.parent / place)
    assert open_reader(f"karpathy:{file.parent}?split=test")[0].load().size == (5, 4)
    assert open_reader(f"karpathy:{file}?split=test&images={file.parent}")[0].load().size == (5, 4)


def test_missing_pictures_are_told_when_one_is_read(file: Path) -> None:
    reader = open_reader(f"karpathy:{file}?split=test")
    assert len(reader) == 2
    with pytest.raises(
        DataError, match=r"'val2014/COCO_val2014_000000000002.jpg' is missing; looked for below"
    ) as caught:
        reader[0]
    assert "train2014 and val2014" in str(caught.value)
    assert "images=FOLDER" in str(caught.value)
    with pytest.raises(DataError, match="no images found"):
        open_reader(f"karpathy:{file}?images=nowhere")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "no picture of the split 'test'"),
        ([a_row(0, "train")], "no picture of the split 'test'"),
        ([a_row(0, "test") | {"split": 1}], "'split' = 1"),
        ([a_row(0, "test", 0)], "has no sentence"),
        ([a_row(0, "test") | {"sentences": ["a dog"]}], r"images\[0\], sentence 0, is 'a dog', not an object"),
        ([a_row(0, "test") | {"sentences": [{"tokens": []}]}], "has no 'raw'"),
        ([{"id": 1}], "has no 'filename'"),
        ("x", "no list 'images'"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, rows: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Karpathy(written(tmp_path, rows))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("split=tset", "Did you mean 'test'"),
        ("count=0", "at least 1 picture"),
        ("restval=no", "restval='no'"),
        ("count=all", "is not a whole number"),
    ],
)
def test_bad_options_are_named(file: Path, line: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_reader(f"karpathy:{file}?{line}")
