from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import closeup.predict as predict
from closeup.data.rle import encode_mask
from closeup.errors import DataError
from closeup.models import Clip
from closeup.predict.region_file import RegionFile
from commands import Run, Write, files_below

BOXES = [[0.0, 0.0, 32.0, 48.0], [32.0, 8.0, 64.0, 40.0]]
WORDS = ("--words", "dog, cat, grass")


def plane(x0: int, y0: int, x1: int, y1: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def coco(names: Sequence[str]) -> dict[str, Any]:
    """Return a COCO file in which each image has two masks with their boxes."""
    images = [{"id": i, "file_name": f"some/where/{name}", "height": 48, "width": 64} for i, name in enumerate(names)]
    rows: list[dict[str, Any]] = []
    for number in range(len(images)):
        for category, (x0, y0, x1, y1) in ((1, (0, 0, 20, 20)), (2, (30, 10, 60, 40))):
            row = {"id": len(rows), "image_id": number, "category_id": category, "bbox": [x0, y0, x1 - x0, y1 - y0]}
            rows.append({**row, "segmentation": encode_mask(plane(x0, y0, x1, y1))})
    categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "grass"}]
    return {"images": images, "annotations": rows, "categories": categories}


@pytest.mark.parametrize("how", ["dense", "crop"])
def test_bare_boxes_as_in_python(closeup: Run, photo: Path, write: Write, small_clip: Clip, how: str) -> None:
    ran = closeup(
        "classify", photo, "--regions", write("boxes.json", BOXES), *WORDS, "--model", small_clip.name,
        "--precision", "fp32", "--how", how, "--top", "2", "--json",
    )  # fmt: skip
    assert ran.code == 0
    expected = predict.classify(small_clip, photo, ["dog", "cat", "grass"], boxes=torch.tensor(BOXES), how=how, top=2)
    regions = ran.json["photos"][0]["regions"]
    assert [region["word"] for region in regions] == list(expected.words)
    assert [region["box"] for region in regions] == BOXES
    found = [[row["score"] for row in region["top"]] for region in regions]
    np.testing.assert_allclose(found, expected.scores.numpy(), atol=1e-6)


def test_bare_annotations_with_masks(closeup: Run, photo: Path, write: Write, small_clip: Clip, tmp_path: Path) -> None:
    rows = [{"segmentation": encode_mask(plane(0, 0, 20, 20))}, {"segmentation": [[30, 10, 60, 10, 60, 40, 30, 40]]}]
    base = ("classify", photo, "--regions", write("masks.json", rows), *WORDS, "--model", small_clip.name)
    ran = closeup(*base, "--how", "masked-crop", "--out", tmp_path / "out", "--format", "png", "npz", "coco", "--json")
    assert ran.code == 0
    assert files_below(tmp_path / "out") == ["coco.json", "photo.npz", "photo.png"]
    with np.load(tmp_path / "out" / "photo.npz") as arrays:
        assert arrays["masks"].shape == (2, 48, 64)
        assert (arrays["masks"][0] == plane(0, 0, 20, 20)).all()
    boxes = [region["box"] for region in ran.json["photos"][0]["regions"]]
    assert boxes == [[0, 0, 20, 20], [30, 10, 60, 40]]
    pooled = closeup(*base, "--boxes", "--json").json["photos"][0]["regions"]
    whole = closeup(*base, "--json").json["photos"][0]["regions"]
    assert pooled[0]["score"] != whole[1]["score"]


def test_every_segment_of_a_coco_file(closeup: Run, photos: Path, write: Write, small_clip: Clip) -> None:
    (photos / "b.jpg").unlink()
    (photos / "deep" / "a.png").unlink()
    path = write("instances.json", coco(["a.png"]))
    ran = closeup("classify", photos, "--regions", path, "--words", path, "--model", small_clip.name, "--json")
    assert ran.code == 0
    assert ran.json["words"] == ["dog", "grass"]
    assert [region["annotated"] for region in ran.json["photos"][0]["regions"]] == ["dog", "grass"]
    table = closeup("classify", photos, "--regions", path, "--words", path, "--model", small_clip.name)
    assert "annotated" in table.out
    assert not (photos.parent / "out").exists()


def test_photos_that_the_file_does_not_list_fail_alone(
    closeup: Run, photos: Path, write: Write, small_clip: Clip
) -> None:
    (photos / "deep" / "a.png").rename(photos / "deep" / "c.png")
    path = write("instances.json", coco(["a.png"]))
    ran = closeup("classify", photos, "--regions", path, *WORDS, "--model", small_clip.name, "--json")
    assert ran.code == 1
    assert [Path(row["photo"]).name for row in ran.json["failed"]] == ["b.jpg", "c.png"]
    assert len(ran.json["photos"]) == 1


def test_the_world_s_panoptic_file(closeup: Run, tmp_path: Path, small_clip: Clip) -> None:
    closeup("world", "export", tmp_path / "world", "--count", "2", "--size", "64")
    path = tmp_path / "world" / "annotations" / "panoptic_val2017.json"
    ran = closeup(
        "classify", tmp_path / "world" / "val2017", "--regions", path, "--words", path, "--model", small_clip.name,
        "--json",
    )  # fmt: skip
    assert ran.code == 0
    assert len(ran.json["photos"]) == 2
    assert all("annotated" in region for photo in ran.json["photos"] for region in photo["regions"])


def test_a_file_of_both_kinds_of_annotation(photo: Path, write: Write) -> None:
    both = write("both.json", {"annotations": [{"bbox": [0, 0, 4, 4]}, {"bbox": [1, 2, 3, 4]}]})
    found = RegionFile(both).of(photo)
    assert found.boxes is not None
    assert found.boxes.tolist() == [[0, 0, 4, 4], [1, 2, 4, 6]]
    assert found.masks is None
    mixed = write("mixed.json", [{"bbox": [0, 0, 4, 4]}, {"segmentation": encode_mask(plane(0, 0, 4, 4))}])
    with pytest.raises(DataError, match="only a 'bbox'"):
        RegionFile(mixed).of(photo)
