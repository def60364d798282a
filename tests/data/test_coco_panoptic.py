from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from closeup.data.coco import CocoInstances
from closeup.data.coco_panoptic import CocoPanoptic, colour_segments, read_segments
from closeup.data.record import iterate
from closeup.errors import DataError
from closeup.geometry import masks_to_boxes
from goldens import SHARED

SAMPLE = SHARED / "data" / "coco_panoptic_sample" / "sample_data"
needs_sample = pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"no {SAMPLE}")

IDS = np.zeros((6, 8), dtype=np.int64)
IDS[:2] = 300
IDS[2:5, 1:4] = 70000
IDS[2:5, 4:8] = 5
IDS[5] = 9


def document() -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "one.png", "height": 6, "width": 8}],
        "categories": [
            {"id": 200, "name": "grass", "isthing": 0},
            {"id": 1, "name": "dog", "isthing": 1},
            {"id": 100, "name": "sky", "isthing": 0},
        ],
        "annotations": [
            {
                "image_id": 1,
                "file_name": "one.png",
                "segments_info": [
                    {"id": 300, "category_id": 100, "bbox": [5, 5, 1, 1], "area": 16, "iscrowd": 0},
                    {"id": 70000, "category_id": 1, "bbox": [1.5, 2, 2.5, 3], "area": 9, "iscrowd": 0},
                    {"id": 5, "category_id": 1, "area": 12, "iscrowd": 1},
                    {"id": 9, "category_id": 200, "area": 8, "iscrowd": 0},
                ],
            }
        ],
    }


def write(folder: Path, content: object, ids: np.ndarray = IDS) -> Path:
    (folder / "masks").mkdir(exist_ok=True)
    PIL.Image.fromarray(colour_segments(ids)).save(folder / "masks" / "one.png")
    PIL.Image.new("RGB", (8, 6)).save(folder / "one.png")
    path = folder / "panoptic.json"
    path.write_text(json.dumps(content))
    return path


def test_segments_become_regions_and_a_label_map(tmp_path: Path) -> None:
    reader = CocoPanoptic(write(tmp_path, document()), tmp_path / "masks", tmp_path)
    assert reader.names == ("dog", "sky", "grass")
    assert reader.things == (True, False, False)
    record = reader[0]
    assert record.masks is not None
    assert record.boxes is not None
    assert record.labels is not None
    assert record.label_map is not None
    for mask, number in zip(record.masks.numpy(), (300, 70000, 9), strict=True):
        assert np.array_equal(mask, number == IDS)
    assert record.labels.tolist() == [1, 0, 2]
    # The box of a thing is the annotation's, that of a stuff its mask's.
    assert record.boxes.tolist() == [[0, 0, 8, 2], [1.5, 2, 4, 5], [0, 5, 8, 6]]
    category = {0: -1, 300: 1, 70000: 0, 5: 0, 9: 2}
    expected = [[category[int(number)] for number in row] for row in IDS]
    assert record.label_map.tolist() == expected
    record.load()


def test_crowds_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, document())
    kept = CocoPanoptic(path, tmp_path / "masks", crowd="keep")[0].labels
    ignored = CocoPanoptic(path, tmp_path / "masks", crowd="ignore")[0].labels
    assert kept is not None
    assert ignored is not None
    assert (kept.tolist(), ignored.tolist()) == ([1, 0, 0, 2], [1, 0, -1, 2])


def test_crowds_that_are_no_regions_are_groups(tmp_path: Path) -> None:
    path = write(tmp_path, document())
    for crowd in ("skip", "ignore"):
        groups = CocoPanoptic(path, tmp_path / "masks", crowd=crowd)[0].groups
        assert groups is not None
        assert groups.masks is not None
        assert groups.labels.tolist() == [0]
        assert np.array_equal(groups.masks[0].numpy(), IDS == 5)
        ys, xs = np.nonzero(IDS == 5)
        assert groups.boxes.tolist() == [[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]]
    assert CocoPanoptic(path, tmp_path / "masks", crowd="keep")[0].groups is None


def test_the_colour_code_inverts(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 256**3, (5, 7))
    PIL.Image.fromarray(colour_segments(ids)).save(tmp_path / "x.png")
    assert np.array_equal(read_segments(tmp_path / "x.png"), ids)


def test_disagreements_are_named(tmp_path: Path) -> None:
    content = document()
    del content["annotations"][0]["segments_info"][3]
    with pytest.raises(DataError, match=r"one\.png.*\[9\] are drawn but not in the json"):
        CocoPanoptic(write(tmp_path, content), tmp_path / "masks")[0]
    with pytest.raises(DataError, match=r"\[9\] are not drawn"):
        CocoPanoptic(write(tmp_path, document(), np.where(IDS == 9, 0, IDS)), tmp_path / "masks")[0]
    with pytest.raises(DataError, match=r"is \(3, 8\), but its image is \(6, 8\)"):
        CocoPanoptic(write(tmp_path, document(), IDS[:3]), tmp_path / "masks")[0]
    reader = CocoPanoptic(write(tmp_path, document()), tmp_path / "masks")
    PIL.Image.new("L", (8, 6)).save(tmp_path / "masks" / "one.png")
    with pytest.raises(DataError, match="is RGB, not of PIL mode L"):
        reader[0]
    (tmp_path / "masks" / "one.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read"):
        reader[0]
    (tmp_path / "masks" / "one.png").unlink()
    with pytest.raises(DataError, match="no such panoptic PNG"):
        reader[0]


def test_wrong_files_say_what_is_wrong_where(tmp_path: Path) -> None:
    content = document()
    del content["categories"][0]["isthing"]
    with pytest.raises(DataError, match="has no 'isthing'"):
        CocoPanoptic(write(tmp_path, content), tmp_path / "masks")
    content = document()
    content["annotations"][0]["segments_info"][1]["category_id"] = 77
    with pytest.raises(DataError, match=r"segments_info\[1\] has category_id 77"):
        CocoPanoptic(write(tmp_path, content), tmp_path / "masks")
    content = document()
    content["annotations"][0]["segments_info"][1]["bbox"] = [1, 2]
    with pytest.raises(DataError, match=r"segments_info\[1\] has 'bbox' = \[1, 2\]"):
        CocoPanoptic(write(tmp_path, content), tmp_path / "masks")
    content["annotations"] = [{"image_id": 1, "bbox": []}]
    with pytest.raises(DataError, match=r"annotations\[0\] has no 'file_name'"):
        CocoPanoptic(write(tmp_path, content), tmp_path / "masks")


@needs_sample
def test_the_real_sample_agrees_with_its_other_forms() -> None:
    reader = CocoPanoptic(
        SAMPLE / "panoptic_examples.json", SAMPLE / "panoptic_examples", SAMPLE / "input_images", crowd="keep"
    )
    assert (len(reader.names), sum(reader.things)) == (133, 80)
    annotations = json.loads((SAMPLE / "panoptic_examples.json").read_text())["annotations"]
    detection = CocoInstances(SAMPLE / "panoptic_coco_detection_format.json", crowd="keep")
    detections = {record.id: record for record in iterate(detection)}
    for record, row in zip(iterate(reader), annotations, strict=True):
        record.load()
        other = detections[record.id]
        assert record.masks is not None
        assert other.masks is not None
        assert record.boxes is not None
        assert record.labels is not None
        assert record.masks.sum(dim=(1, 2)).tolist() == [segment["area"] for segment in row["segments_info"]]
        # The detection form lists the same segments, their masks as run lengths.
        assert torch.equal(record.masks, other.masks)
        assert other.labels is not None
        assert torch.equal(record.labels, other.labels)
        # COCO's boxes of whole segments count pixels from the first to the last, as ours do.
        assert (record.boxes - masks_to_boxes(record.masks)).abs().max() <= 1


@needs_sample
def test_the_real_label_map_agrees_with_the_two_channel_form() -> None:
    reader = CocoPanoptic(SAMPLE / "panoptic_examples.json", SAMPLE / "panoptic_examples")
    document = json.loads((SAMPLE / "panoptic_examples.json").read_text())
    ids = sorted(row["id"] for row in document["categories"])
    for record, row in zip(iterate(reader), document["annotations"], strict=True):
        with PIL.Image.open(SAMPLE / "panoptic_examples_2ch_format" / row["file_name"]) as picture:
            categories = np.asarray(picture)[..., 0]
        assert record.label_map is not None
        ours = np.array([*ids, 0])[record.label_map.numpy()]
        assert np.array_equal(ours, categories)
