from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO

from closeup.data.fgovd import BENCHMARKS
from closeup.data.registry import open_reader
from closeup.data.world.captions import full_caption
from closeup.data.world.export import export_world
from closeup.data.world.lexicon import NAMES, SHAPES
from closeup.data.world.world import World
from closeup.errors import InputError

COUNT = 3
SIZE = (96, 96)


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_world(tmp_path_factory.mktemp("coco"), split="val", count=COUNT, size=SIZE)


def test_panoptic_files_read_back_as_the_same_label_maps(coco: Path) -> None:
    world, read = World("val", count=COUNT, size=SIZE), open_reader(f"coco-panoptic:{coco}")
    assert tuple(read.names) == NAMES
    assert len(read) == COUNT
    for index in range(COUNT):
        ours, theirs = world[index], read[index]
        assert ours.label_map is not None
        assert theirs.label_map is not None
        assert torch.equal(ours.label_map, theirs.label_map)
        assert np.array_equal(np.asarray(ours.load()), np.asarray(theirs.load()))


def test_instances_are_the_things_alone(coco: Path) -> None:
    world, read = World("val", count=COUNT, size=SIZE), open_reader(f"coco:{coco}")
    assert tuple(read.names) == tuple(SHAPES)
    for index in range(COUNT):
        record, shown = world.with_things(index)
        theirs = read[index]
        assert record.masks is not None
        assert theirs.masks is not None
        assert theirs.count == len(shown)
        assert torch.equal(theirs.masks, record.masks[: len(shown)])
        assert theirs.labels is not None
        assert [read.names[label] for label in theirs.labels.tolist()] == [thing.shape for thing in shown]


def test_pycocotools_loads_instances_and_captions(coco: Path, capsys: pytest.CaptureFixture[str]) -> None:
    instances = COCO(coco / "annotations" / "instances_val2017.json")
    captions = COCO(coco / "annotations" / "captions_val2017.json")
    capsys.readouterr()
    assert len(instances.imgs) == len(captions.imgs) == COUNT
    assert len(captions.anns) == 5 * COUNT


def test_ade20k_form_reads_back(tmp_path: Path) -> None:
    export_world(tmp_path, split="train", count=2, size=SIZE, form="ade20k")
    read, world = open_reader(f"labelmaps:{tmp_path}/train?offset=1&ignore=0"), World("train", count=2, size=SIZE)
    assert tuple(read.names) == NAMES
    for index in range(2):
        ours, theirs = world[index].label_map, read[index].label_map
        assert ours is not None
        assert theirs is not None
        assert torch.equal(ours, theirs)


def test_fgovd_form_has_the_benchmarks_files_and_rules(tmp_path: Path) -> None:
    export_world(tmp_path, count=4, form="fgovd")
    assert {path.stem for path in tmp_path.glob("*.json")} == set(BENCHMARKS)
    for path in tmp_path.glob("*.json"):
        benchmark = json.loads(path.read_text())
        captions = {category["id"]: category["name"] for category in benchmark["categories"]}
        images = {image["id"]: image for image in benchmark["images"]}
        assert len(captions) == len(benchmark["categories"])
        assert benchmark["annotations"]
        for annotation in benchmark["annotations"]:
            positive = captions[annotation["category_id"]]
            negatives = [captions[number] for number in annotation["neg_category_ids"]]
            assert positive not in negatives
            assert len(set(negatives)) == len(negatives)
            x, y, width, height = annotation["bbox"]
            assert x >= 0
            assert y >= 0
            assert x + width <= images[annotation["image_id"]]["width"]
            assert y + height <= images[annotation["image_id"]]["height"]
            assert (tmp_path / "images" / images[annotation["image_id"]]["file_name"]).is_file()
    hard = json.loads((tmp_path / "1_attributes.json").read_text())
    assert all(len(annotation["neg_category_ids"]) == 10 for annotation in hard["annotations"])


def test_fgovd_captions_belong_to_their_boxes(tmp_path: Path) -> None:
    export_world(tmp_path, count=3, form="fgovd")
    hard = json.loads((tmp_path / "1_attributes.json").read_text())
    captions = {category["id"]: category["name"] for category in hard["categories"]}
    world = World("val", count=3)
    for annotation in hard["annotations"]:
        record, shown = world.with_things(annotation["image_id"])
        assert record.boxes is not None
        x, y, width, height = annotation["bbox"]
        box = torch.tensor([x, y, x + width, y + height])
        row = int((record.boxes - box).abs().sum(dim=1).argmin())
        assert full_caption(shown[row]) == captions[annotation["category_id"]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"form": "coca"}, "Did you mean 'coco'"),
        ({"split": "valid"}, "Did you mean 'val'"),
        ({"count": 0}, "at least 1"),
    ],
)
def test_bad_arguments_write_nothing(tmp_path: Path, arguments: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        export_world(tmp_path / "out", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
