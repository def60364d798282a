"""Masks from files, proposers, checkpoints of transformers and the truth, each against its own making."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from closeup.data.record import Record
from closeup.data.rle import encode_mask
from closeup.data.world import World
from closeup.errors import DataError, InputError, ModelError
from closeup.geometry import masks_to_boxes
from closeup.heads.mask_proposer import load_mask_proposer, new_mask_proposer
from closeup.heads.trained import save_head
from closeup.models.load import load
from closeup.predict.mask_files import FoundMasks
from closeup.predict.mask_sources import MaskSource, open_masks
from closeup.predict.query_masks import query_masks
from closeup.regions.propose import propose
from tiny_towers import randomise

SMALL = {"queries": 6, "channels": 32, "hidden": 16, "heads": 2, "layers": 2, "feed_forward": 32, "words_hidden": 24}
SIZE = (30, 44)


def masks(count: int = 3) -> Tensor:
    rows, cols = torch.arange(SIZE[0])[:, None], torch.arange(SIZE[1])
    planes = [(rows + cols) % 7 < 3, (rows - 20) ** 2 + (cols - 15) ** 2 < 90, (rows > 9) & (cols < 12)]
    return torch.stack(planes)[:count]


def picture() -> PIL.Image.Image:
    return PIL.Image.new("RGB", (SIZE[1], SIZE[0]), (90, 120, 30))


def photo(folder: Path, name: str = "deep/dog.1.png") -> Record:
    """Return a record as a folder of photos gives it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    picture().save(path)
    return Record(name, path, None)


def found(line: object, record: Record) -> FoundMasks:
    source = open_masks(str(line), device="cpu", precision="fp32")
    assert isinstance(source, MaskSource)
    assert source.name == str(line)
    return source(record, record.load())


def rows_of(planes: Tensor) -> list[dict[str, object]]:
    return [{"segmentation": encode_mask(plane.numpy())} for plane in planes]


def test_found_are_the_regions_of_the_picture_itself() -> None:
    record = World("val", count=1)[0]
    proposed = propose(record.load())
    assert torch.equal(masks_to_boxes(found("found", record).masks), proposed.boxes)


def test_truth_is_the_masks_or_the_regions_of_the_label_map() -> None:
    record = World("val", count=1)[0]
    assert record.masks is not None
    assert torch.equal(found("truth", record).masks, record.masks)
    record = replace(record, masks=None, boxes=None, labels=None, attributes=())
    assert record.label_map is not None
    shown = sorted(set(record.label_map.flatten().tolist()) - {-1})
    expected = torch.stack([record.label_map == label for label in shown])
    assert torch.equal(found("truth", record).masks, expected)
    with pytest.raises(DataError, match="neither masks nor a label map"):
        found("truth", replace(record, label_map=None))


@pytest.mark.parametrize("place", ["deep/dog.1", "dog.1", "deep/dog.1.png"])
def test_an_npz_a_photo(tmp_path: Path, place: str) -> None:
    record, path = photo(tmp_path / "photos"), tmp_path / "masks" / f"{place}.npz"
    path.parent.mkdir(parents=True)
    empty = torch.zeros(1, *SIZE, dtype=torch.bool)
    np.savez(path, masks=torch.cat([masks(), empty]).numpy(), scores=np.array([0.1, 0.2, 0.3, 0.4]))
    seen = found(tmp_path / "masks", record)
    assert torch.equal(seen.masks, masks())
    assert seen.scores is not None
    assert seen.scores.tolist() == pytest.approx([0.1, 0.2, 0.3])
    np.savez(path, anything=masks().numpy().astype(np.uint8) * 255)
    assert torch.equal(found(tmp_path / "masks", record).masks, masks())
    np.savez(path, masks=np.zeros((0, *SIZE), dtype=bool))
    assert found(tmp_path / "masks", record).masks.shape == (0, *SIZE)


def test_a_json_a_photo(tmp_path: Path) -> None:
    record, path = photo(tmp_path / "photos", "cat.jpg"), tmp_path / "cat.json"
    rows = rows_of(masks())
    sam = [
        {**row, "predicted_iou": score, "stability_score": 1.0}
        for row, score in zip(rows, (0.9, 0.5, 0.7), strict=True)
    ]
    forms = [rows, sam, {"annotations": sam}, [row["segmentation"] for row in rows]]
    for form, scored in zip(forms, (False, True, True, False), strict=True):
        path.write_text(json.dumps(form))
        seen = found(tmp_path, record)
        assert torch.equal(seen.masks, masks())
        assert (seen.scores is not None) == scored
        if seen.scores is not None:
            assert seen.scores.tolist() == pytest.approx([0.9, 0.5, 0.7])
    polygon = [[2.0, 2.0, 20.0, 2.0, 20.0, 12.0, 2.0, 12.0]]
    path.write_text(json.dumps([{"segmentation": polygon, "bbox": [2, 2, 18, 10]}]))
    assert found(tmp_path, record).masks[0].nonzero().amin(dim=0).tolist() == [2, 2]


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P"])
def test_a_folder_of_planes_a_photo(tmp_path: Path, mode: str) -> None:
    record, folder = photo(tmp_path / "photos", "cat.jpg"), tmp_path / "cat"
    folder.mkdir()
    order = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1])
    for number, plane in enumerate(masks()[order]):
        PIL.Image.fromarray(plane.numpy()).convert(mode).save(folder / f"{number}.png")
    assert torch.equal(found(tmp_path, record).masks, masks()[order])
    # As SAM's own script tells scores.
    lines = [f"{number},5,{number / 20}" for number in reversed(range(len(order)))]
    (folder / "metadata.csv").write_text("\n".join(["id,area,predicted_iou", *lines]))
    scores = found(tmp_path, record).scores
    assert scores is not None
    assert scores.tolist() == pytest.approx([number / 20 for number in range(len(order))])


def test_one_coco_file_of_all_photos(tmp_path: Path) -> None:
    cat, dog, cow = (photo(tmp_path / "photos", f"{name}.png") for name in ("cat", "dog", "cow"))
    images = [
        {"id": number, "file_name": f"{name}.png", "height": SIZE[0], "width": SIZE[1]}
        for number, name in enumerate(("cat", "dog"))
    ]
    rows = [{**row, "id": i, "image_id": 1, "category_id": 1} for i, row in enumerate(rows_of(masks(2)))]
    document = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "region"}]}
    path = tmp_path / "all.json"
    path.write_text(json.dumps(document))
    assert torch.equal(found(path, dog).masks, masks(2))
    assert found(path, cat).masks.shape == (0, *SIZE)
    with pytest.raises(DataError, match=r"no image of the name 'cow\.png'"):
        found(path, cow)
    path.write_text(json.dumps(rows_of(masks())))
    with pytest.raises(DataError, match="which photo"):
        found(path, dog)


def test_wrong_files_are_told(tmp_path: Path) -> None:
    record = photo(tmp_path / "photos", "cat.png")
    with pytest.raises(DataError, match=r"holds no masks of cat\.png or cat\. Looked for"):
        found(tmp_path / "photos", record)
    path = tmp_path / "cat.npz"
    for content, told in (
        ({"masks": np.zeros((2, 5, 5), dtype=bool) | True}, "height, width"),
        ({"masks": np.ones((1, *SIZE), dtype=np.float32)}, "give bool"),
        ({"masks": np.arange(SIZE[0] * SIZE[1]).reshape(1, *SIZE)}, "not a map of labels"),
        ({"a": np.zeros(1), "b": np.zeros(1)}, "holds the arrays a, b"),
        ({"masks": masks().numpy(), "scores": np.zeros(2)}, "3 masks and 2 scores"),
    ):
        np.savez(path, **content)
        with pytest.raises(InputError, match=told):
            found(tmp_path, record)
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be read as arrays"):
        found(tmp_path, record)
    path.unlink()
    for text, told in (("{", "not a json file"), ("{}", "no list of masks"), ('[{"bbox": [1, 2, 3, 4]}]', "mask 0")):
        (tmp_path / "cat.json").write_text(text)
        with pytest.raises(DataError, match=told):
            found(tmp_path, record)
    (tmp_path / "cat.json").unlink()
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="cannot be read"):
        found(tmp_path, record)


@pytest.mark.parametrize("line", ["", "gone", "sam:x", "hf:", "truth?threshold=1", "gone/?threshold=x"])
def test_what_is_no_source_is_told(line: str) -> None:
    with pytest.raises(InputError):
        open_masks(line)


def by_hand(logits: Tensor, canvas: tuple[int, int], content: tuple[int, int], size: tuple[int, int]) -> Tensor:
    fine = F.interpolate(logits[None], canvas, mode="bilinear")[..., : content[0], : content[1]]
    return F.interpolate(fine, size, mode="bilinear")[0].sigmoid()


def test_a_trained_proposer(tmp_path: Path) -> None:
    clip = load("tiny", device="cpu", precision="fp32")
    made = new_mask_proposer(
        clip, ("star", "grass", "fish"), (False, False, True), templates="simple", size=64, config=SMALL
    )
    randomise(made.head, 0)
    folder = save_head(made, tmp_path / "proposer")
    proposer = load_mask_proposer(folder, device="cpu", precision="fp32")
    record = World("test", count=1, size=(48, 80))[0]
    for threshold in (0.4, 0.6):
        line = folder if threshold == 0.4 else f"{folder}?threshold={threshold}"
        seen = found(line, record)
        canvas, _ = clip.preprocess(record.load(), policy="longest-pad-corner", size=64)
        with torch.no_grad():
            expected = proposer.head.find(canvas[None])
            planes = by_hand(expected.masks[0], (64, 64), (38, 64), (48, 80)) > threshold
            words = proposer.head.logits(expected.embeddings[0], proposer.head.words).softmax(dim=1)
        kept = planes.flatten(1).any(dim=1)
        assert torch.equal(seen.masks, planes[kept])
        assert seen.scores is not None
        torch.testing.assert_close(seen.scores, words[kept, :-1].sum(dim=1), atol=1e-5, rtol=1e-4)
    assert open_masks(str(folder)).fingerprint == proposer.fingerprint
    for wrong, told in (("threshold=2", "give a probability"), ("threshold=x", "not a number"), ("limit=2", "limit")):
        with pytest.raises(InputError, match=told):
            found(f"{folder}?{wrong}", record)


def test_masks_of_queries_without_a_pixel_are_dropped() -> None:
    logits = torch.full((40, 4, 4), -5.0)
    logits[::2, :2] = 5.0
    made = query_masks(logits, torch.arange(40.0), canvas=(16, 16), content=(16, 8), size=(20, 10), threshold=0.5)
    assert made.masks.shape == (20, 20, 10)
    assert made.scores is not None
    assert made.scores.tolist() == list(range(0, 40, 2))
    assert bool(made.masks[:, :8].all())
    assert not bool(made.masks[:, 13:].any())
    none = query_masks(logits[1::2], torch.zeros(20), canvas=(16, 16), content=(16, 16), size=(5, 7), threshold=0.5)
    assert none.masks.shape == (0, 5, 7)


def test_a_checkpoint_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="could not be fetched or made"):
        open_masks(f"hf:{tmp_path}/gone")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="of the kind 'bert', which proposes no masks"):
        open_masks(f"hf:{tmp_path}")
