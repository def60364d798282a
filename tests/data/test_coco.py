from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from pycocotools.coco import COCO

from closeup._types import Federated
from closeup.data.coco import CocoCaptions, CocoInstances
from closeup.data.lvis import Lvis
from closeup.data.record import iterate
from closeup.data.rle import decode_mask, encode_mask
from closeup.errors import DataError
from closeup.geometry import masks_to_boxes
from goldens import SHARED

LVIS = SHARED / "data" / "lvis_sample" / "lvis_val_100.json"
SAMPLE = SHARED / "data" / "coco_panoptic_sample" / "sample_data"
needs_lvis = pytest.mark.skipif(not LVIS.is_file(), reason=f"no {LVIS}")
needs_sample = pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"no {SAMPLE}")

# What pycocotools itself decodes, numpy 2 warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TRIANGLE = [[2.0, 1.0, 9.0, 1.5, 5.0, 7.0]]
TWO_PARTS = [[0.0, 0.0, 3.0, 0.0, 3.0, 3.0, 0.0, 3.0], [6.0, 4.0, 10.0, 4.0, 10.0, 8.0]]
RUNS = {"size": [8, 12], "counts": [10, 5, 81]}


def document() -> dict[str, Any]:
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 8, "width": 12},
            {"id": 3, "file_name": "b.png", "height": 8, "width": 12},
        ],
        "categories": [{"id": 44, "name": "zebra"}, {"id": 2, "name": "dog"}],
        "annotations": [
            row(1, 7, 44, [2, 1, 7, 6], TRIANGLE),
            row(2, 7, 2, [0, 0, 10, 8], TWO_PARTS),
            {**row(3, 7, 2, [1, 2, 1, 5], RUNS), "iscrowd": 1},
            row(4, 7, 2, [3, 3, 0, 2], TRIANGLE),
        ],
    }


def row(number: int, image: int, category: int, box: list[float], segmentation: object) -> dict[str, Any]:
    base = {"id": number, "image_id": image, "category_id": category, "iscrowd": 0, "area": 1.0}
    return {**base, "bbox": box, "segmentation": segmentation}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        PIL.Image.new("RGB", (12, 8)).save(tmp_path / name)
    return tmp_path


def write(folder: Path, content: object) -> Path:
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path


def official(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def test_instances_read_as_pycocotools_reads_them(folder: Path) -> None:
    path = write(folder, document())
    reader = CocoInstances(path, folder, crowd="keep")
    theirs = official(path)
    assert reader.names == ("dog", "zebra")
    assert reader.things == (True, True)
    assert len(reader) == 2
    record = reader[0]
    assert record.id == "7"
    assert record.image == folder / "a.png"
    assert record.size == (8, 12)
    assert record.load().size == (12, 8)
    assert record.masks is not None
    assert record.boxes is not None
    assert record.labels is not None
    kept = [1, 2, 3]  # 4 has no width
    for mask, number in zip(record.masks.numpy(), kept, strict=True):
        assert np.array_equal(mask, theirs.annToMask(theirs.anns[number]).astype(bool))
    assert record.boxes.tolist() == [[2, 1, 9, 7], [0, 0, 10, 8], [1, 2, 2, 7]]
    assert record.labels.tolist() == [1, 0, 0]


def test_an_image_without_annotations_has_no_regions(folder: Path) -> None:
    record = CocoInstances(write(folder, document()), folder)[1]
    assert record.count == 0
    assert record.boxes is not None
    assert record.boxes.shape == (0, 4)
    assert record.masks is not None
    assert record.masks.shape == (0, 8, 12)


def test_crowds_are_skipped_ignored_or_kept(folder: Path) -> None:
    path = write(folder, document())
    labels = {crowd: CocoInstances(path, folder, crowd=crowd)[0].labels for crowd in ("skip", "ignore", "keep")}
    assert {crowd: found.tolist() for crowd, found in labels.items() if found is not None} == {
        "skip": [1, 0],
        "ignore": [1, 0, -1],
        "keep": [1, 0, 0],
    }
    groups = CocoInstances(path, folder)[0].groups
    assert groups is not None
    (row,) = [row for row in document()["annotations"] if row.get("iscrowd")]
    x, y, width, height = row["bbox"]
    assert groups.boxes.tolist() == [[x, y, x + width, y + height]]
    assert groups.labels.tolist() == [0]
    assert groups.masks is not None
    assert torch.equal(groups.masks, CocoInstances(path, folder, crowd="keep")[0].masks[[2]])  # type: ignore[index]
    assert CocoInstances(path, folder, crowd="ignore")[0].groups is not None
    assert CocoInstances(path, folder, crowd="keep")[0].groups is None
    assert CocoInstances(path, folder)[1].groups is None


def test_a_crowd_may_lack_its_box_or_its_outline(folder: Path) -> None:
    content = document()
    del content["annotations"][2]["bbox"]
    boxless = CocoInstances(write(folder, content), folder)[0].groups
    assert boxless is not None
    assert boxless.masks is not None
    assert torch.equal(boxless.boxes, masks_to_boxes(boxless.masks))
    content = document()
    content["annotations"][2]["bbox"] = [2, 1, 4, 5]
    del content["annotations"][2]["segmentation"]
    shapeless = CocoInstances(write(folder, content), folder)[0].groups
    assert shapeless is not None
    assert shapeless.masks is not None
    assert shapeless.masks[0].nonzero().amin(dim=0).tolist() == [1, 2]
    assert shapeless.masks.sum() == 20


def test_boxes_alone_masks_alone_and_attributes(folder: Path) -> None:
    content = document()
    for each in content["annotations"]:
        del each["segmentation"]
        each["attributes"] = {"colour": "red"}
    record = CocoInstances(write(folder, content), folder)[0]
    assert record.masks is None
    assert record.attributes == ({"colour": "red"},) * 2
    content = document()
    for each in content["annotations"]:
        del each["bbox"]
    for masks in (True, False):
        record = CocoInstances(write(folder, content), folder, masks=masks)[0]
        assert record.boxes is not None
        assert record.masks is None or torch.equal(record.boxes, masks_to_boxes(record.masks))
        assert record.boxes[1].tolist() == [0, 0, 10, 7]
        assert (record.masks is None) == (not masks)


def test_negative_indices_and_iteration_work_like_a_list(folder: Path) -> None:
    reader = CocoInstances(write(folder, document()), folder)
    assert reader[-1].id == "3"
    assert [record.id for record in iterate(reader)] == ["7", "3"]


def change(content: dict[str, Any], table: str, index: int, **values: object) -> dict[str, Any]:
    for key, value in values.items():
        if value is None:
            del content[table][index][key]
        else:
            content[table][index][key] = value
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "holds a json list"),
        ({"images": []}, "no list 'categories'.*'images'"),
        (change(document(), "annotations", 1, image_id=None), r"annotations\[1\] has no 'image_id'"),
        (change(document(), "annotations", 1, image_id=99), r"has image_id 99, which is not among the 2 images"),
        (change(document(), "annotations", 0, category_id=5), r"annotations\[0\] has category_id 5"),
        (change(document(), "annotations", 0, bbox=[1, 2, 3]), r"'bbox' = \[1, 2, 3\]"),
        (
            change(document(), "annotations", 0, bbox=[1, 2, float("nan"), 3]),
            r"'bbox' = \[1, 2, nan, 3\]",
        ),
        (change(document(), "annotations", 0, bbox=None, segmentation=None), "neither 'bbox' nor 'segmentation'"),
        (change(document(), "annotations", 0, segmentation=None), "no 'segmentation' while others have"),
        (change(document(), "images", 1, id=7), "images holds the id 7 twice"),
        (change(document(), "categories", 1, name=5), r"categories\[1\] has 'name' = 5, which is not str"),
    ],
)
def test_wrong_files_say_what_is_wrong_where(folder: Path, content: object, message: str) -> None:
    path = write(folder, content)
    with pytest.raises(DataError, match=rf"instances\.json.*{message}"):
        CocoInstances(path, folder)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 2, 3, 4]], "at least three points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "at least three points"),
        ("abc", "polygons or run lengths"),
        ({"size": [4, 4], "counts": [16]}, r"size \[4, 4\]"),
        ({"size": [8, 12], "counts": [5]}, "add up to 5"),
        ({"size": [8, 12], "counts": 3}, "'counts'"),
    ],
)
def test_wrong_masks_say_which_annotation(folder: Path, segmentation: object, message: str) -> None:
    reader = CocoInstances(write(folder, change(document(), "annotations", 1, segmentation=segmentation)), folder)
    with pytest.raises(DataError, match=f"image 7, annotation 2: .*{message}"):
        reader[0]


def test_missing_files_are_named(folder: Path) -> None:
    with pytest.raises(DataError, match="no such annotation file"):
        CocoInstances(folder / "nothing.json")
    (folder / "cut.json").write_text('{"images": [')
    with pytest.raises(DataError, match="not a json file"):
        CocoInstances(folder / "cut.json")
    with pytest.raises(DataError, match="no such folder of images"):
        CocoInstances(write(folder, document()), folder / "nowhere")
    (folder / "b.png").unlink()
    with pytest.raises(DataError, match=r"holds no b\.png"):
        CocoInstances(write(folder, document()), folder)[1]


def test_pictures_are_found_by_their_old_name_and_by_url(folder: Path) -> None:
    (folder / "val2017").mkdir()
    (folder / "a.png").rename(folder / "val2017" / "000000000007.jpg")
    content = change(document(), "images", 0, file_name="COCO_val2014_000000000007.jpg")
    content = change(content, "images", 1, file_name=None, coco_url="http://x/val2017/000000000007.jpg")
    path = write(folder, content)
    assert CocoInstances(path, folder)[1].image == folder / "val2017" / "000000000007.jpg"
    assert CocoInstances(path, folder / "val2017")[0].image == folder / "val2017" / "000000000007.jpg"


def test_run_lengths_invert(folder: Path) -> None:
    mask = np.random.default_rng(0).random((9, 13)) > 0.6
    coded = encode_mask(mask)
    assert json.loads(json.dumps(coded)) == coded
    assert np.array_equal(decode_mask(coded, 9, 13, "here"), mask)


def test_captions_in_the_order_of_the_file(folder: Path) -> None:
    content = document()
    content["annotations"] = [
        {"id": 1, "image_id": 7, "caption": "A dog.\n"},
        {"id": 2, "image_id": 3, "caption": "A cat."},
        {"id": 3, "image_id": 7, "caption": "Grass."},
    ]
    reader = CocoCaptions(write(folder, content), folder)
    assert reader[0].captions == ("A dog.", "Grass.")
    assert reader.by_record() == {"7": ("A dog.", "Grass."), "3": ("A cat.",)}
    assert reader.names == ()
    with pytest.raises(DataError, match="no 'caption'"):
        CocoCaptions(write(folder, document()), folder)


@needs_lvis
def test_lvis_reads_as_pycocotools_reads_it() -> None:
    reader = Lvis(LVIS)
    theirs = official(LVIS)
    assert len(reader) == 100
    assert len(reader.names) == 1230
    assert set(reader.frequencies) == {"r", "c", "f"}
    assert reader.synonyms[reader.names.index("acorn")] == ("acorn",)
    total = 0
    for index in range(0, 100, 7):
        record = reader[index]
        rows = theirs.imgToAnns[int(record.id)]
        assert record.count == len(rows)
        assert record.masks is not None
        assert record.labels is not None
        assert record.boxes is not None
        for place, each in enumerate(rows):
            assert np.array_equal(record.masks[place].numpy(), theirs.annToMask(each).astype(bool))
            assert reader.names[int(record.labels[place])] == theirs.cats[each["category_id"]]["name"]
            x, y, width, height = each["bbox"]
            expected = torch.tensor([x, y, x + width, y + height])
            torch.testing.assert_close(record.boxes[place], expected)
        total += len(rows)
    assert total > 50
    record = CocoInstances(LVIS, masks=False)[0]
    assert record.masks is None
    assert record.boxes is not None


@needs_lvis
def test_lvis_says_which_classes_are_rare_and_which_were_looked_for() -> None:
    reader = Lvis(LVIS, masks=False)
    official = json.loads(LVIS.read_text())
    ids = {row["name"]: row["id"] for row in official["categories"]}
    assert set(reader.novel) == {row["name"] for row in official["categories"] if row["frequency"] == "r"}
    for image, record in zip(official["images"], iterate(reader), strict=True):
        assert record.federated is not None
        for labels, field in (
            (record.federated.absent, "neg_category_ids"),
            (record.federated.partial, "not_exhaustive_category_ids"),
        ):
            assert [ids[reader.names[label]] for label in labels] == image[field]


def test_an_image_of_lvis_may_say_nothing_but_not_nonsense(folder: Path) -> None:
    content = document()
    for each in content["categories"]:
        each.update(frequency="c", synonyms=[each["name"]])
    content["images"][1].update(neg_category_ids=[44], not_exhaustive_category_ids=[])
    reader = Lvis(write(folder, content), folder)
    assert reader.novel == ()
    assert reader[0].federated is None
    assert reader[1].federated == Federated(absent=(1,))
    for wrong, message in [([5], "has category_id 5"), ("dog", "not a list of category ids")]:
        content["images"][1]["neg_category_ids"] = wrong
        with pytest.raises(DataError, match=rf"images\[1\].*'neg_category_ids'.*{message}"):
            Lvis(write(folder, content), folder)


@needs_sample
def test_a_real_detection_file() -> None:
    path = SAMPLE / "panoptic_coco_detection_format.json"
    reader = CocoInstances(path, SAMPLE / "input_images", crowd="keep")
    theirs = official(path)
    for record in iterate(reader):
        record.load()
        assert record.masks is not None
        areas = [each["area"] for each in theirs.imgToAnns[int(record.id)]]
        assert record.masks.sum(dim=(1, 2)).tolist() == areas
