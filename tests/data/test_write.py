from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from torch import Tensor

from closeup.data.atomic import replacing
from closeup.data.coco import CocoCaptions, CocoInstances
from closeup.data.coco_panoptic import CocoPanoptic
from closeup.data.images import open_image
from closeup.data.labelmaps import LabelMapFolder
from closeup.data.record import Record, iterate
from closeup.data.registry import open_reader
from closeup.data.write_coco import write_coco_captions, write_coco_instances, write_coco_panoptic
from closeup.data.write_labelmaps import write_labelmaps
from closeup.data.write_pictures import safe_name
from closeup.errors import InputError

NAMES = ("dog", "ball", "grass", "sky")
THINGS = (True, True, False, False)
HEIGHT, WIDTH = 20, 30


def scene(identity: str, seed: int) -> Record:
    """A record in panoptic form: two things, then the grounds, each a region; a void corner."""
    generator = np.random.default_rng(seed)
    picture = generator.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    owner = np.full((HEIGHT, WIDTH), 2)
    owner[10:] = 3
    owner[4:12, 3:9] = 0
    owner[8:16, 12 + seed % 5 : 25] = 1
    owner[-3:, -3:] = -1
    masks = torch.stack([torch.from_numpy(owner == index) for index in range(4)])
    labels = torch.tensor([0, 1, 2, 3])
    boxes = torch.tensor([[2.7, 4.1, 9.3, 12.6], [12, 8, 25, 16], [0, 0, 30, 10], [0, 10, 30, 20]])
    return Record(
        id=identity,
        image=picture,
        size=(HEIGHT, WIDTH),
        boxes=boxes,
        masks=masks,
        labels=labels,
        label_map=torch.from_numpy(owner),
        captions=("a dog", f"a scene of seed {seed}"),
        attributes=({"colour": "red"}, {"colour": "dark blue", "pattern": "striped"}, {}, {}),
    )


def same(ours: Tensor | None, theirs: Tensor | None) -> bool:
    return (ours is None and theirs is None) or (ours is not None and theirs is not None and torch.equal(ours, theirs))


def official(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


@pytest.mark.parametrize("ids", [("12", "7"), ("world/val-0001", "world/val-0002")])
def test_instances_come_back_and_pycocotools_loads_them(tmp_path: Path, ids: tuple[str, str]) -> None:
    records = [scene(identity, seed) for seed, identity in enumerate(ids)]
    path = write_coco_instances(iter(records), NAMES, tmp_path / "instances.json", images=tmp_path / "images")
    reader = open_reader(f"coco:{tmp_path}")
    assert reader.names == NAMES
    for record, back in zip(records, iterate(reader), strict=True):
        assert back.id == record.id
        assert back.size == record.size
        assert back.attributes == record.attributes
        assert same(back.boxes, record.boxes)
        assert same(back.masks, record.masks)
        assert same(back.labels, record.labels)
        assert np.array_equal(np.asarray(back.load()), np.asarray(open_image(record.image)))
    theirs = official(path)
    assert sorted(theirs.getImgIds()) == ([7, 12] if ids[0] == "12" else [1, 2])
    assert [each["name"] for each in theirs.loadCats(theirs.getCatIds())] == list(NAMES)
    for annotation in theirs.anns.values():
        assert annotation["area"] == int(theirs_area(theirs, annotation))


def theirs_area(coco: COCO, annotation: dict[str, object]) -> int:
    return int(coco_mask.area(coco.annToRLE(annotation)))


def test_boxes_alone_masks_alone_and_ignored_regions(tmp_path: Path) -> None:
    full = scene("1", 0)
    boxes = Record("1", full.image, full.size, boxes=full.boxes, labels=full.labels)
    masks = Record("2", full.image, full.size, masks=full.masks, labels=torch.tensor([0, -1, 2, -1]))
    empty = Record("3", full.image, full.size)
    path = write_coco_instances([boxes, masks, empty], NAMES, tmp_path / "instances.json")
    reader = CocoInstances(path, masks=False)
    assert same(reader[0].boxes, full.boxes)
    assert reader[1].labels is not None
    assert reader[1].labels.tolist() == [0, 2]
    assert reader[2].count == 0
    assert not (tmp_path / "images").exists()


def test_panoptic_comes_back(tmp_path: Path) -> None:
    records = [scene("a", 0), scene("b", 3)]
    write_coco_panoptic(
        records, NAMES, THINGS, tmp_path / "panoptic.json", tmp_path / "panoptic", images=tmp_path / "images"
    )
    reader = open_reader(f"coco-panoptic:{tmp_path}")
    assert (reader.names, reader.things) == (NAMES, THINGS)
    for record, back in zip(records, iterate(reader), strict=True):
        assert back.id == record.id
        assert record.boxes is not None
        assert record.masks is not None
        assert back.boxes is not None
        assert torch.equal(back.boxes[:2], record.boxes[:2])
        assert same(back.masks, record.masks)
        assert same(back.labels, record.labels)
        assert same(back.label_map, record.label_map)
        assert np.array_equal(np.asarray(back.load()), np.asarray(open_image(record.image)))


def test_pixels_that_only_the_label_map_names_become_segments(tmp_path: Path) -> None:
    full = scene("1", 0)
    assert full.masks is not None
    first = Record("1", full.image, full.size, masks=full.masks[:1], labels=torch.tensor([0]), label_map=full.label_map)
    path = write_coco_panoptic([first], NAMES, THINGS, tmp_path / "p.json", tmp_path / "p")
    kept = CocoPanoptic(path, tmp_path / "p")[0]
    assert kept.labels is not None
    assert kept.labels.tolist() == [0, 2, 3], "the ball's pixels are a crowd, which is skipped"
    assert same(kept.label_map, full.label_map)
    everything = CocoPanoptic(path, tmp_path / "p", crowd="keep")[0]
    assert everything.labels is not None
    assert everything.labels.tolist() == [0, 1, 2, 3]
    assert same(everything.masks, full.masks)


def test_captions_come_back_and_join_other_readers(tmp_path: Path) -> None:
    records = [scene("a", 0), scene("b", 1)]
    path = write_coco_captions(records, tmp_path / "captions.json", images=tmp_path / "images")
    assert [record.captions for record in iterate(CocoCaptions(path, tmp_path / "images"))] == [
        r.captions for r in records
    ]
    assert [len(official(path).imgToAnns[number]) for number in (1, 2)] == [2, 2]
    write_coco_instances(records, NAMES, tmp_path / "instances.json")
    joined = open_reader(f"coco:{tmp_path}?captions=captions.json")
    assert [record.captions for record in iterate(joined)] == [record.captions for record in records]


@pytest.mark.parametrize(("offset", "ignore", "folder"), [(0, None, "labels"), (1, 0, "annotations")])
def test_label_maps_come_back(tmp_path: Path, offset: int, ignore: int | None, folder: str) -> None:
    records = [scene("train/a.1", 0), scene("train/b.1", 1)]
    root = write_labelmaps(records, NAMES, tmp_path / "out", offset=offset, ignore=ignore, labels=folder)
    reader = open_reader(f"labelmaps:{root}?offset={offset}&ignore={255 if ignore is None else ignore}")
    assert reader.names == NAMES
    for record, back in zip(records, iterate(reader), strict=True):
        assert back.id == record.id
        assert same(back.label_map, record.label_map)
        assert np.array_equal(np.asarray(back.load()), np.asarray(open_image(record.image)))


def test_label_maps_of_many_classes_take_sixteen_bits(tmp_path: Path) -> None:
    names = [str(number) for number in range(400)]
    label_map = torch.arange(600).reshape(HEIGHT, WIDTH).clamp(max=399)
    label_map[0, 5] = -1
    record = Record("1", np.zeros((HEIGHT, WIDTH, 3), np.uint8), None, label_map=label_map)
    root = write_labelmaps([record], names, tmp_path)
    assert same(open_reader(f"labelmaps:{root}")[0].label_map, label_map)
    direct = LabelMapFolder(root / "images", root / "labels", names, ignore={65535})
    assert same(direct[0].label_map, label_map)


def test_files_are_copied_as_they_are(tmp_path: Path) -> None:
    source = tmp_path / "photo.jpg"
    PIL.Image.new("RGB", (WIDTH, HEIGHT), (9, 99, 199)).save(source)
    write_coco_captions([Record("photo.jpg", source, None)], tmp_path / "out" / "c.json", images=tmp_path / "out")
    assert (tmp_path / "out" / "photo.jpg").read_bytes() == source.read_bytes()
    entry = json.loads((tmp_path / "out" / "c.json").read_text())["images"][0]
    assert (entry["height"], entry["width"]) == (HEIGHT, WIDTH)


def test_wrong_records_are_named_and_nothing_is_left(tmp_path: Path) -> None:
    full = scene("1", 0)
    path = tmp_path / "x.json"
    with pytest.raises(InputError, match="Two records have the id '1'"):
        write_coco_captions([full, full], path)
    with pytest.raises(InputError, match="label 2, but there are 2 names"):
        write_coco_instances([full], NAMES[:2], path)
    with pytest.raises(InputError, match="4 regions without labels"):
        write_coco_instances([Record("1", full.image, full.size, boxes=full.boxes)], NAMES, path)
    with pytest.raises(InputError, match="neither masks nor a label map"):
        write_coco_panoptic([Record("1", full.image, full.size)], NAMES, THINGS, path, tmp_path / "p")
    covers = torch.ones(2, HEIGHT, WIDTH, dtype=torch.bool)
    overlap = Record("1", full.image, None, masks=covers, labels=torch.tensor([0, 0]))
    with pytest.raises(InputError, match=r"masks overlap \(regions \[0, 1\]"):
        write_coco_panoptic([overlap], NAMES, THINGS, path, tmp_path / "p")
    with pytest.raises(InputError, match="no label map"):
        write_labelmaps([overlap], NAMES, tmp_path / "l")
    with pytest.raises(InputError, match="labels from -1 to 3, but there are 2 names"):
        write_labelmaps([full], NAMES[:2], tmp_path / "l")
    with pytest.raises(InputError, match="ignore=2 is also a class, 'grass'"):
        write_labelmaps([full], NAMES, tmp_path / "l", ignore=2)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_a_failed_write_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.txt"
    with replacing(path) as temporary:
        temporary.write_text("old")
    with contextlib.suppress(KeyError), replacing(path) as temporary:
        temporary.write_text("new, half")
        raise KeyError
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("identity", "name"), [("a b:c", "a_b_c"), ("../../etc/x", "etc/x"), ("/abs/x.png", "abs/x.png"), ("é/1", "é/1")]
)
def test_ids_make_names_that_stay_below_their_folder(identity: str, name: str) -> None:
    assert safe_name(identity) == name


def test_an_id_without_letters_makes_no_name() -> None:
    with pytest.raises(InputError, match="makes no file name"):
        safe_name("../..")
