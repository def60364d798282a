"""Open-vocabulary COCO and LVIS: what is left of a file, by counting it again, and what stays as it was."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closeup.data.coco import CocoInstances
from closeup.data.coco_json import CocoJson
from closeup.data.lvis import Lvis
from closeup.data.open_vocabulary import COCO_BASE, COCO_NOVEL, OpenVocabulary, novel_of_coco, ov_coco, ov_lvis
from closeup.data.readable import open_album
from closeup.data.record import iterate
from closeup.errors import DataError
from goldens import SHARED
from open_vocabulary_files import OTHERS, coco_document, lvis_document

CATEGORIES = SHARED / "data" / "coco_panoptic_sample" / "panoptic_coco_categories.json"
DETECTION = SHARED / "data" / "coco_panoptic_sample" / "sample_data" / "panoptic_coco_detection_format.json"
LVIS = SHARED / "data" / "lvis_sample" / "lvis_val_100.json"
needs_coco = pytest.mark.skipif(not DETECTION.is_file(), reason=f"no {DETECTION}")
needs_lvis = pytest.mark.skipif(not LVIS.is_file(), reason=f"no {LVIS}")


def parsed(document: dict[str, Any]) -> CocoJson:
    return CocoJson(Path("instances.json"), document)


def named(document: dict[str, Any]) -> list[str]:
    """Return the class of every annotation."""
    names = {row["id"]: row["name"] for row in document["categories"]}
    return [names[row["category_id"]] for row in document["annotations"]]


def others(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in ("images", "annotations", "categories")}


def test_the_lists_are_48_and_17_and_apart() -> None:
    assert (len(COCO_BASE), len(COCO_NOVEL)) == (48, 17)
    assert len({*COCO_BASE, *COCO_NOVEL, *OTHERS}) == 80


@pytest.mark.skipif(not CATEGORIES.is_file(), reason=f"no {CATEGORIES}")
def test_the_lists_are_classes_of_coco() -> None:
    things = {row["name"] for row in json.loads(CATEGORIES.read_text()) if row["isthing"]}
    assert things == {*COCO_BASE, *COCO_NOVEL, *OTHERS}


@given(seed=st.integers(0, 10_000), images=st.integers(0, 12))
@settings(max_examples=40, deadline=None)
def test_coco_keeps_what_it_should_and_nothing_else(seed: int, images: int) -> None:
    document = coco_document(seed, images)
    before = copy.deepcopy(document)
    made = ov_coco(parsed(document))
    assert document == before, "the file itself is not touched"
    assert made.all_boxes is not None
    for kept, words in ((made.base_boxes, COCO_BASE), (made.all_boxes, (*COCO_BASE, *COCO_NOVEL))):
        expected = [row for row, name in zip(before["annotations"], named(before), strict=True) if name in words]
        assert kept["annotations"] == expected
        assert kept["images"] == [
            image for image in before["images"] if any(row["image_id"] == image["id"] for row in expected)
        ]
        assert [row["name"] for row in kept["categories"]] == list(made.names)
        assert [row["id"] for row in kept["categories"]] == sorted(
            row["id"] for row in before["categories"] if row["name"] not in OTHERS
        )
        assert others(kept) == others(before)
    assert set(named(made.base_boxes)).isdisjoint(COCO_NOVEL)
    assert set(made.base) == set(COCO_BASE)
    assert set(made.novel) == set(COCO_NOVEL)


@given(seed=st.integers(0, 10_000), images=st.integers(0, 12))
@settings(max_examples=40, deadline=None)
def test_lvis_loses_boxes_of_rare_classes_alone(seed: int, images: int) -> None:
    document = lvis_document(seed, images)
    before = copy.deepcopy(document)
    made = ov_lvis(parsed(document))
    assert document == before
    assert made.all_boxes is None, "evaluation is on the official file"
    rare = {row["name"] for row in before["categories"] if row["frequency"] == "r"}
    wanted = [row for row, name in zip(before["annotations"], named(before), strict=True) if name not in rare]
    shown = [image for image in before["images"] if image["id"] in {row["image_id"] for row in wanted}]
    assert made.base_boxes == {**before, "annotations": wanted, "images": shown}
    assert set(made.novel) == rare
    assert {*made.base, *made.novel} == {row["name"] for row in before["categories"]}


@pytest.mark.parametrize(("make", "document"), [(ov_coco, coco_document), (ov_lvis, lvis_document)])
def test_the_second_time_changes_nothing(make: Any, document: Any) -> None:  # noqa: ANN401 - either protocol
    once: OpenVocabulary = make(parsed(document(5, 12)))
    again: OpenVocabulary = make(parsed(once.base_boxes))
    assert again.base_boxes == once.base_boxes
    assert (again.names, again.novel) == (once.names, once.novel)
    if once.all_boxes is not None:
        assert make(parsed(once.all_boxes)).all_boxes == once.all_boxes
        assert make(parsed(once.all_boxes)).base_boxes == once.base_boxes


@needs_coco
def test_real_coco_annotations() -> None:
    official = json.loads(DETECTION.read_text())
    made = ov_coco(CocoJson.read(DETECTION))
    assert made.all_boxes is not None
    assert len(made.all_boxes["categories"]) == 65
    found = [name for name in named(official) if name in COCO_BASE or name in COCO_NOVEL]
    assert named(made.all_boxes) == found
    assert named(made.base_boxes) == [name for name in found if name in COCO_BASE]
    assert others(made.base_boxes) == others(official)


@needs_lvis
def test_real_lvis_annotations(tmp_path: Path) -> None:
    official = json.loads(LVIS.read_text())
    made = ov_lvis(CocoJson.read(LVIS))
    assert len(made.novel) == 454
    assert len(named(official)) - len(named(made.base_boxes)) == 1
    assert set(named(made.base_boxes)).isdisjoint(made.novel)
    path = tmp_path / "base.json"
    path.write_text(json.dumps(made.base_boxes))
    reader, theirs = Lvis(path, masks=False), Lvis(LVIS, masks=False)
    assert (reader.names, reader.novel) == (theirs.names, made.novel)
    looked_for = {record.id: record.federated for record in iterate(theirs)}
    assert {record.id: record.federated for record in iterate(reader)}.items() <= looked_for.items()
    assert all(record.count for record in iterate(reader))
    assert len(reader) <= len(theirs)


def test_a_reader_knows_the_novel_words_of_65_classes_alone(tmp_path: Path) -> None:
    document = coco_document(3, 4)
    made = ov_coco(parsed(document))
    for content, novel in ((document, ()), (made.base_boxes, made.novel), (made.all_boxes, made.novel)):
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(content))
        assert CocoInstances(path, masks=False).novel == novel
    (tmp_path / "captions.json").write_text(json.dumps({"images": made.base_boxes["images"], "annotations": []}))
    assert open_album(f"coco:{path}?images=none&masks=no").novel == made.novel
    assert open_album(f"coco:{path}?images=none&masks=no&captions=captions.json").novel == made.novel
    assert novel_of_coco([*COCO_BASE, *COCO_NOVEL[1:], "hot dog"]) == ()


def changed(document: dict[str, Any], **tables: object) -> dict[str, Any]:
    return {**document, **tables}


def rows(document: dict[str, Any], **values: object) -> list[dict[str, Any]]:
    return [{**row, **values} for row in document["categories"]]


def test_what_is_no_such_file_is_said() -> None:
    coco, lvis = coco_document(1, 3), lvis_document(1, 3)
    few = [row for row in coco["categories"] if row["name"] not in ("tie", "zebra")]
    twice = [*coco["categories"], {"id": 500, "name": "Dog"}]
    segments = [{"image_id": 1, "file_name": "1.png", "segments_info": []}]
    box = {"id": 1, "image_id": 1, "category_id": coco["categories"][0]["id"], "bbox": [0, 0, float("nan"), 2]}
    number = next(row["id"] for row in coco["categories"] if row["name"] == "dog")
    for document, said in [
        (changed(coco, categories=few), r"lacks 2 of the 65 classes of OV-COCO: 'zebra', 'tie'"),
        (changed(coco, categories=twice), rf"names the class 'Dog' twice, in the categories {number} and 500"),
        (changed(coco, annotations=segments), "holds panoptic segments, not boxes"),
        (changed(coco, annotations=[box]), r"annotations\[0\] has 'bbox'"),
        (changed(coco, annotations=[{**box, "bbox": None, "category_id": 501}]), "category_id 501"),
        (changed(coco, annotations=[{**box, "bbox": None, "image_id": 99}]), "image_id 99"),
        ({"images": [], "annotations": []}, "no list 'categories'"),
        (changed(coco, categories=rows(coco, frequency="f")), "Use ov-lvis"),
    ]:
        with pytest.raises(DataError, match=rf"instances\.json.*{said}"):
            ov_coco(parsed(document))
    for document, said in [
        (coco, "'frequency' = None"),
        (changed(lvis, categories=rows(lvis, frequency="often")), "'frequency' = 'often'"),
        (changed(lvis, categories=rows(lvis, frequency="f")), "0 of its 9 classes are rare"),
        (changed(lvis, categories=rows(lvis, frequency="r")), "9 of its 9 classes are rare"),
        (changed(lvis, categories=rows(lvis, name="cup")), "names the class 'cup' twice"),
    ]:
        with pytest.raises(DataError, match=rf"instances\.json.*{said}"):
            ov_lvis(parsed(document))


@pytest.mark.parametrize("name", ["a|b", "#hash", "new\nline", " ", "\ud83d"])
def test_a_name_that_no_word_list_can_hold_is_said(name: str) -> None:
    document = lvis_document(0, 2)
    document["categories"][0]["name"] = name
    with pytest.raises(DataError, match="which no list of words can hold"):
        ov_lvis(parsed(document))
