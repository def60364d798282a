from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from closeup.errors import CloseupError, InputError
from closeup.geometry import masks_to_boxes
from closeup.models.clip import Clip
from closeup.predict import (
    RegionResult,
    SegmentationResult,
    classify,
    coco_document,
    heatmap,
    save_coco,
    segment,
)
from tiny_clips import picture

# pycocotools makes arrays in a way that numpy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WORDS = ["cat", "dog", "grass", "sky"]
BOXES = torch.tensor([[0.0, 0, 40, 30], [33.5, 2.25, 70, 20]])


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    PIL.Image.fromarray(picture(50, 80).numpy()).save(path)
    return path


@pytest.fixture
def masks() -> torch.Tensor:
    planes = torch.zeros(2, 50, 80, dtype=torch.bool)
    planes[0, 3:20, 5:40] = True
    planes[1, 30:, 50:] = True
    return planes


@pytest.fixture
def regions(clip: Clip, photo: Path, masks: torch.Tensor) -> RegionResult:
    return classify(clip, photo, WORDS, masks=masks)


@pytest.fixture
def segmentation(clip: Clip, photo: Path) -> SegmentationResult:
    return segment(clip, photo, WORDS)


def test_pycocotools_reads_masks_as_they_were(regions: RegionResult, masks: torch.Tensor, tmp_path: Path) -> None:
    coco = COCO(str(regions.save(tmp_path / "regions.json")))
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == ["photo.png"]
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert len(annotations) == 2
    boxes = masks_to_boxes(masks)
    for row, annotation in enumerate(annotations):
        assert np.array_equal(coco.annToMask(annotation).astype(bool), masks[row].numpy())
        assert annotation["area"] == int(masks[row].sum()) == int(coco_mask.area(annotation["segmentation"]))
        x, y, width, height = annotation["bbox"]
        assert [x, y, x + width, y + height] == boxes[row].tolist()
        assert coco.loadCats(annotation["category_id"])[0]["name"] == regions.words[row]
        assert annotation["score"] == pytest.approx(float(regions.probabilities[row, 0]))


def test_the_annotations_are_coco_results_too(clip: Clip, photo: Path, regions: RegionResult, tmp_path: Path) -> None:
    boxes = classify(clip, photo, WORDS, boxes=BOXES)
    document = COCO(str(save_coco([regions, boxes], tmp_path / "both.json")))
    results = document.loadRes(document.dataset["annotations"])
    assert len(results.getAnnIds(imgIds=[1])) == len(results.getAnnIds(imgIds=[2])) == 2
    assert results.loadAnns(results.getAnnIds(imgIds=[2]))[1]["bbox"] == pytest.approx([33.5, 2.25, 36.5, 17.75])


def test_a_segmentation_is_one_annotation_per_word(segmentation: SegmentationResult, tmp_path: Path) -> None:
    coco = COCO(str(segmentation.save(tmp_path / "pixels.json")))
    annotations = coco.loadAnns(coco.getAnnIds())
    assert len(annotations) == len(segmentation.present) > 1
    painted = np.full((50, 80), -1)
    for annotation in annotations:
        painted[coco.annToMask(annotation).astype(bool)] = annotation["category_id"] - 1
        word = coco.loadCats(annotation["category_id"])[0]["name"]
        mean = segmentation.scores[segmentation.mask(word)].mean()
        assert annotation["score"] == pytest.approx(float(mean), abs=1e-6)
    assert np.array_equal(painted, segmentation.label_map.numpy())


def test_the_document_says_what_made_it(regions: RegionResult) -> None:
    document = json.loads(json.dumps(regions.to_coco()))
    assert document["info"]["closeup"] == json.loads(regions.provenance.to_json())
    assert document["info"]["closeup"]["model"] == "tiny test"


def test_one_file_holds_one_vocabulary_and_something(clip: Clip, photo: Path, regions: RegionResult) -> None:
    other = classify(clip, photo, WORDS[:2], boxes=BOXES)
    with pytest.raises(InputError, match="Result 1 has other names"):
        coco_document([regions, other])
    with pytest.raises(InputError, match="no result"):
        coco_document([])


def test_no_regions_are_a_document_and_a_picture_too(clip: Clip, photo: Path, tmp_path: Path) -> None:
    empty = classify(clip, photo, WORDS, boxes=torch.zeros(0, 4))
    assert empty.to_coco()["annotations"] == []
    assert empty.save(tmp_path / "empty.png").exists()
    nothing = segment(clip, photo, WORDS, background=1.0)
    assert nothing.to_coco()["annotations"] == []
    assert nothing.save(tmp_path / "nothing.jpg").exists()


def test_arrays_come_back_from_npz(clip: Clip, photo: Path, regions: RegionResult, tmp_path: Path) -> None:
    for result in (regions, segment(clip, photo, WORDS), heatmap(clip, photo, WORDS)):
        with np.load(result.save(tmp_path / "deep" / "result.npz"), allow_pickle=False) as stored:
            for name, array in result.arrays().items():
                assert np.array_equal(stored[name], array)
                assert stored[name].dtype == array.dtype
            assert tuple(stored["names"]) == result.names
            assert tuple(stored["size"]) == (50, 80)
            assert json.loads(str(stored["provenance"])) == json.loads(result.provenance.to_json())


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".WEBP"])
def test_pictures_are_written_by_suffix(segmentation: SegmentationResult, tmp_path: Path, suffix: str) -> None:
    path = segmentation.save(tmp_path / f"result{suffix}")
    with PIL.Image.open(path) as opened:
        assert opened.size == segmentation.picture().size
    assert sorted(file.name for file in tmp_path.iterdir()) == ["photo.png", path.name]


def test_a_notebook_gets_a_png(segmentation: SegmentationResult) -> None:
    assert segmentation._repr_png_().startswith(b"\x89PNG")


def test_unknown_suffixes_are_refused_and_nothing_is_written(
    clip: Clip, photo: Path, regions: RegionResult, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"\.npz, \.json"):
        regions.save(tmp_path / "regions.txt")
    with pytest.raises(InputError, match="HeatmapResult"):
        heatmap(clip, photo, WORDS).save(tmp_path / "heat.json")
    assert [file.name for file in tmp_path.iterdir()] == ["photo.png"]


def test_an_unknown_word_has_no_mask(segmentation: SegmentationResult) -> None:
    with pytest.raises(InputError, match="'grass'"):
        segmentation.mask("gras")


@pytest.mark.filterwarnings("ignore:OpenCV")
@pytest.mark.skipif(importlib.util.find_spec("supervision") is None, reason="supervision is not installed")
def test_supervision_takes_over_what_there_is(
    clip: Clip, photo: Path, regions: RegionResult, segmentation: SegmentationResult
) -> None:
    for result in (regions, classify(clip, photo, WORDS, boxes=BOXES), classify(clip, photo, WORDS, boxes=[])):
        detections = result.to_supervision()
        assert len(detections) == len(result)
        assert tuple(detections.data["class_name"]) == result.words
        assert np.array_equal(detections.class_id, result.labels[:, 0].numpy())
    whole = segmentation.to_supervision()
    assert np.array_equal(whole.mask.any(axis=0), np.ones((50, 80), dtype=bool))


@pytest.mark.skipif(importlib.util.find_spec("supervision") is not None, reason="supervision is installed")
def test_without_supervision_its_form_says_what_to_install(regions: RegionResult) -> None:
    with pytest.raises(CloseupError, match="pip install"):
        regions.to_supervision()
