"""FG-OVD files: the official ones whole, written ones for what may be wrong, and ours read back."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch

from closeup.data.coco import CocoInstances
from closeup.data.fgovd import BENCHMARKS, FgOvd, find_benchmarks
from closeup.data.record import Description, Reader, Record, iterate
from closeup.data.region_captions import open_described
from closeup.data.registry import open_reader
from closeup.data.write_fgovd import DescribedRegions, write_fgovd
from closeup.errors import DataError, InputError
from goldens import SHARED

FILES = SHARED / "data" / "fgovd"

# Images, annotations, categories, distinct right captions, and how many annotations have how many wrong captions.
OFFICIAL = {
    "benchmarks/3_attributes": (853, 1299, 10681, 971, {10: 1299}),
    "benchmarks/pattern": (321, 467, 2830, 337, {7: 320, 8: 137, 10: 10}),
    "benchmarks/transparency": (230, 409, 771, 238, {1: 1, 2: 377, 4: 19, 6: 5, 8: 7}),
    "validation_sets/3_attributes": (680, 761, 8371, 761, {10: 761}),
    "validation_sets/pattern": (308, 322, 3049, 322, {8: 189, 9: 115, 10: 18}),
    "validation_sets/transparency": (118, 119, 403, 119, {2: 102, 4: 12, 6: 4, 8: 1}),
}


def a_file() -> dict[str, Any]:
    """Two images, one without annotations; sparse ids out of order; one text under two ids."""
    texts = {40: "A red cup.", 7: "A blue cup.", 12: "A blue cup.", 90: "A green mug."}
    return {
        "images": [
            {"id": 5, "file_name": "val2017/000000000005.jpg", "height": 20, "width": 30},
            {"id": 9, "file_name": "train2017/000000000009.jpg", "height": 20, "width": 30},
        ],
        "annotations": [
            {
                "id": 3,
                "image_id": 9,
                "category_id": 40,
                "bbox": [1, 2, 10, 5],
                "segmentation": [[1, 2, 11, 2, 11, 7, 1, 7]],
                "neg_category_ids": [90, 7],
            },
            {
                "id": 4,
                "image_id": 9,
                "category_id": 12,
                "bbox": [0, 0, 30, 20],
                "segmentation": [[0, 0, 30, 0, 30, 20]],
                "neg_category_ids": [40],
            },
        ],
        "categories": [{"id": number, "name": text} for number, text in texts.items()],
    }


def written(folder: Path, document: object, name: str = "1_attributes.json") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.mark.skipif(not FILES.is_dir(), reason=f"no {FILES}")
@pytest.mark.parametrize("name", OFFICIAL)
def test_the_official_files_parse_whole(name: str) -> None:
    images, annotations, categories, distinct, wrong = OFFICIAL[name]
    folder, split = name.split("/")
    reader = open_reader(f"fgovd:{FILES}/{folder}?split={split}&images=none&masks=no")
    assert isinstance(reader, Reader)
    assert (len(reader), len(reader.names), len(reader.things)) == (images, categories, categories)
    document = json.loads((FILES / f"{name}.json").read_text())
    text = {row["id"]: row["name"] for row in document["categories"]}
    expected: dict[int, list[dict[str, Any]]] = {}
    for row in document["annotations"]:
        expected.setdefault(row["image_id"], []).append(row)
    counts: dict[int, int] = {}
    rights = []
    for record in iterate(reader):
        rows = expected[int(record.id)]
        assert record.labels is not None
        assert record.boxes is not None
        assert [reader.names[label] for label in record.labels.tolist()] == [one.right for one in record.descriptions]
        rights += record.labels.tolist()
        for row, box, one in zip(rows, record.boxes, record.descriptions, strict=True):
            assert one.right == text[row["category_id"]]
            assert one.wrong == tuple(text[each] for each in row["neg_category_ids"])
            x, y, width, height = row["bbox"]
            assert box.tolist() == pytest.approx([x, y, x + width, y + height])
            counts[len(one.wrong)] = counts.get(len(one.wrong), 0) + 1
    assert len(rights) == annotations
    assert len(set(rights)) == distinct
    assert counts == wrong
    assert sum(
        len(one.wrong) >= BENCHMARKS[split].negatives for record in iterate(reader) for one in record.descriptions
    ) == (408 if name == "benchmarks/transparency" else annotations)


@pytest.mark.skipif(not FILES.is_dir(), reason=f"no {FILES}")
def test_the_official_folder_lists_its_benchmarks_in_the_papers_order() -> None:
    assert list(find_benchmarks(FILES)) == ["3_attributes", "pattern", "transparency"]
    assert list(find_benchmarks(FILES / "validation_sets")) == ["3_attributes", "pattern", "transparency"]
    official = open_reader(f"fgovd:{FILES}?split=pattern")
    assert len(official) == 321
    with pytest.raises(DataError, match=r"val2017/000000239627.jpg' is missing.*COCO's train2017 and val2017"):
        official[0]
    masks = open_reader(f"fgovd:{FILES}?split=pattern&images=none")[0].masks
    assert masks is not None
    assert masks.flatten(1).sum(dim=1).tolist() == pytest.approx([3842.84], rel=0.2)


def test_benchmarks_are_the_papers_eight() -> None:
    titles = [each.title for each in BENCHMARKS.values()]
    assert titles == ["Trivial", "Easy", "Medium", "Hard", "Color", "Material", "Pattern", "Transparency"]
    assert [each.negatives for each in BENCHMARKS.values()] == [10, 10, 10, 10, 10, 10, 7, 2]


def test_a_text_under_two_ids_stays_two_names(tmp_path: Path) -> None:
    reader = FgOvd(written(tmp_path, a_file()))
    assert reader.names == ("A blue cup.", "A blue cup.", "A red cup.", "A green mug.")
    assert len(reader) == 1
    record = reader[0]
    assert record.id == "9"
    assert record.image == Path("train2017/000000000009.jpg")
    assert record.labels is not None
    assert record.labels.tolist() == [2, 1]
    assert record.descriptions == (
        Description("A red cup.", ("A green mug.", "A blue cup.")),
        Description("A blue cup.", ("A red cup.",)),
    )
    assert record.masks is not None
    assert record.masks.shape == (2, 20, 30)
    assert record.masks[0].sum() == 50
    assert FgOvd(reader.path, masks=False)[0].masks is None


@pytest.mark.parametrize(
    ("picture", "line"),
    [
        ("coco/train2017/000000000009.jpg", "fgovd:{0}/sets?split=1_attributes&images={0}/coco"),
        ("coco/train2017/000000000009.jpg", "fgovd:{0}/sets/1_attributes.json?images={0}/coco"),
        ("coco/images/000000000009.jpg", "fgovd:{0}/sets?split=1_attributes&images={0}/coco/images"),
        ("sets/train2017/000000000009.jpg", "fgovd:{0}/sets?split=1_attributes"),
        ("train2017/000000000009.jpg", "fgovd:{0}/sets?split=1_attributes"),
        ("images/train2017/000000000009.jpg", "fgovd:{0}/sets/1_attributes.json"),
    ],
)
def test_pictures_are_found(tmp_path: Path, picture: str, line: str) -> None:
    written(tmp_path / "sets", a_file())
    reader = open_reader(line.format(tmp_path)) if "images=" not in line else None
    if reader is not None:
        assert len(reader) == 1
        with pytest.raises(DataError, match="is missing; looked for below") as caught:
            reader[0]
        assert str(tmp_path / "sets") in str(caught.value)
    (tmp_path / picture).parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (30, 20)).save(tmp_path / picture)
    assert open_reader(line.format(tmp_path))[0].load().size == (30, 20)


def changed(*path: str | int, to: object) -> dict[str, Any]:
    document = copy.deepcopy(a_file())
    place: Any = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    return document


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (changed("annotations", 0, "neg_category_ids", to=[90, 8]), r"annotations\[0\] has 8 in 'neg_category_ids'"),
        (changed("annotations", 1, "neg_category_ids", to=["7"]), r"annotations\[1\] has '7' in"),
        (changed("annotations", 1, "neg_category_ids", to=7), "not list"),
        (changed("annotations", 0, "bbox", to=[25, 2, 10, 5]), "not inside its image of 30 x 20"),
        (changed("annotations", 0, "bbox", to=[-1, 2, 10, 5]), "not inside"),
        (changed("annotations", 0, "bbox", to=[1, 2, 0, 5]), "not inside"),
        (changed("annotations", 0, "bbox", to=[1, 2, 3]), "not x, y, width, height"),
        (changed("annotations", 0, "category_id", to=8), "category_id 8"),
        (changed("annotations", 0, "image_id", to=8), "image_id 8"),
        (changed("images", 1, to={"id": 9, "file_name": "a.jpg"}), "has no size"),
        (
            changed("annotations", 0, to={"id": 1, "image_id": 9, "category_id": 7, "bbox": [0, 0, 1, 1]}),
            "masks=False|FG",
        ),
        (changed("categories", 0, "id", to=7), "the id 7 twice"),
        ({"images": [], "annotations": []}, "no list 'categories'"),
        ([], "holds a json list"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, document: object, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        FgOvd(written(tmp_path, document))
    assert "1_attributes.json" in str(caught.value)


def test_coco_files_are_told_from_fgovds(tmp_path: Path) -> None:
    document = a_file()
    for row in document["annotations"]:
        del row["neg_category_ids"]
    path = written(tmp_path, document)
    with pytest.raises(DataError, match="not an FG-OVD file"):
        FgOvd(path)
    with pytest.raises(DataError, match=r"neither 'neg_category_ids'.* nor 'caption'"):
        open_described(path)


def test_missing_files_and_benchmarks(tmp_path: Path) -> None:
    written(tmp_path / "benchmarks", a_file(), "color.json")
    written(tmp_path, a_file(), "shuffle_negatives.json")
    written(tmp_path, a_file(), "other.json")
    assert find_benchmarks(tmp_path) == {
        "shuffle_negatives": tmp_path / "shuffle_negatives.json",
        "color": tmp_path / "benchmarks" / "color.json",
    }
    assert len(open_reader(f"fgovd:{tmp_path}", "color")) == 1
    with pytest.raises(DataError, match=r"pattern.json.*split=1_attributes"):
        open_reader(f"fgovd:{tmp_path}?split=pattern")
    with pytest.raises(DataError, match="no such folder"):
        find_benchmarks(tmp_path / "gone")
    with pytest.raises(DataError, match="none of FG-OVD's files"):
        find_benchmarks(written(tmp_path / "empty", {}, "other.json").parent)


def test_written_files_read_back_as_the_same_records(tmp_path: Path) -> None:
    source = FgOvd(written(tmp_path, a_file()))
    path = write_fgovd(iterate(source), tmp_path / "again" / "color.json")
    again = FgOvd(path)
    assert len(again) == 1
    ours, theirs = source[0], again[0]
    for name in ("boxes", "masks"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))
    assert (ours.id, ours.size, ours.descriptions) == (theirs.id, theirs.size, theirs.descriptions)
    assert isinstance(CocoInstances(path)[0].boxes, torch.Tensor)


def test_regions_without_wrong_captions_are_left_out(tmp_path: Path) -> None:
    gathered = DescribedRegions()
    boxes = torch.tensor([[0.0, 0, 4, 4], [1, 1, 5, 5], [1, 1, 6, 6]])
    same = Description("a cup", ("a mug",))
    right = Record("a", "a.png", (8, 8), boxes=boxes, descriptions=(same, Description("a jug"), same))
    bare = Record("b", "b.png", (8, 8), boxes=boxes[:1], descriptions=(Description("a jug"),))
    gathered.add(right, "a.png")
    gathered.add(bare, "b.png")
    gathered.add(Record("c", "c.png", (8, 8)), "c.png")
    assert gathered.rights == ["a cup", "a jug", "a cup", "a jug"]
    assert gathered.write(tmp_path / "x.json", [*right.descriptions, *bare.descriptions]) == 2
    document = json.loads((tmp_path / "x.json").read_text())
    assert [row["file_name"] for row in document["images"]] == ["a.png"]
    assert [row["name"] for row in document["categories"]] == ["a cup", "a mug"]
    assert [(row["instance_count"], row["image_count"]) for row in document["categories"]] == [(2, 1), (0, 0)]
    with pytest.raises(InputError, match="without boxes or descriptions"):
        gathered.add(Record("d", "d.png", (8, 8), boxes=boxes), "d.png")


def test_captions_of_regions_are_right_descriptions(tmp_path: Path) -> None:
    document = a_file()
    for row, caption in zip(document["annotations"], ("a red cup ", "a red cup"), strict=True):
        row["caption"] = caption
        del row["neg_category_ids"], row["category_id"]
    del document["categories"]
    reader = open_described(written(tmp_path, document, "refs.json"))
    record = reader[0]
    assert record.descriptions == (Description("a red cup"), Description("a red cup"))
    assert record.masks is not None
    del document["annotations"][1]["caption"]
    with pytest.raises(DataError, match=r"annotations\[1\] has no 'caption'"):
        open_described(written(tmp_path, document, "refs.json"))
