from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from pycocotools.coco import COCO

from closeup.data.images import open_image
from closeup.data.registry import open_reader
from closeup.data.rle import decode_mask
from closeup.heads.rpn import load_proposer, new_proposer
from closeup.heads.trained import save_head
from closeup.models import load
from closeup.predict import propose_boxes
from closeup.regions.propose import ProposalPolicy, propose
from commands import Run, files_below, write_photo


@pytest.fixture
def small_proposer(tmp_path: Path) -> Path:
    small = {"channels": 8, "proposals": 20, "candidates": 40}
    proposer = new_proposer(load("tiny"), (), (), templates="simple", size=64, config=small)
    return save_head(proposer, tmp_path / "proposer")


def test_a_folder_of_photos_becomes_a_coco_file(
    closeup: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = closeup("propose", photos, "--out", "proposals.json", "--json")
    assert ran.code == 0, ran.err
    assert files_below(tmp_path) == ["photos/a.png", "photos/b.jpg", "photos/deep/a.png", "proposals.json"]
    assert ran.json["written"] == ["proposals.json"]
    assert ran.json["failed"] == []
    coco = COCO(tmp_path / "proposals.json")
    capsys.readouterr()
    assert coco.loadCats(coco.getCatIds()) == [{"id": 1, "name": "region", "supercategory": ""}]
    assert sum(row["regions"] for row in ran.json["photos"]) == ran.json["regions"] == len(coco.getAnnIds())
    assert all(row["seconds"] > 0 for row in ran.json["photos"])
    images = coco.loadImgs(coco.getImgIds())
    assert [image["file_name"] for image in images] == ["a.png", "b.jpg", "deep/a.png"]
    for image, told in zip(images, ran.json["photos"], strict=True):
        expected = propose(open_image(photos / image["file_name"]))
        rows = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert len(rows) == told["regions"] == len(expected)
        boxes = torch.tensor([row["bbox"] for row in rows])
        assert torch.equal(boxes[:, 2:] + boxes[:, :2], expected.boxes[:, 2:])
        masks = [decode_mask(row["segmentation"], image["height"], image["width"], "a row") for row in rows]
        assert torch.equal(torch.from_numpy(np.stack(masks)), expected.masks[:])
        assert [row["area"] for row in rows] == [float(mask.sum()) for mask in masks]


def test_a_trained_proposers_boxes_come_with_their_scores(closeup: Run, photos: Path, small_proposer: Path) -> None:
    ran = closeup("propose", photos, "--proposer", small_proposer, "--limit", "5", "--out", "boxes.json", "--json")
    assert ran.code == 0, ran.err
    reader, proposer = open_reader(ran.json["data"]), load_proposer(small_proposer)
    document = json.loads(Path("boxes.json").read_text())
    for index, image in enumerate(document["images"]):
        expected = propose_boxes(proposer, photos / image["file_name"])
        rows = [row for row in document["annotations"] if row["image_id"] == image["id"]]
        assert [row["score"] for row in rows] == pytest.approx(expected.logits[:5].sigmoid().tolist(), abs=1e-5)
        boxes = reader[index].boxes
        assert boxes is not None
        torch.testing.assert_close(boxes, expected.boxes[:5], rtol=1e-4, atol=1e-3)
    wrong = closeup("propose", photos, "--proposer", "none", "--out", "boxes.json")
    assert wrong.code == 2
    assert "no trained head" in wrong.err


def test_the_line_that_is_told_reads_them_back(closeup: Run, photos: Path) -> None:
    (photos / "my photo (1).png").write_bytes((photos / "a.png").read_bytes())
    told = closeup("propose", photos, "--out", "deep/er/proposals.json", "--json").json
    reader = open_reader(told["data"])
    assert reader.names == ("region",)
    for index in range(4):
        record = reader[index]
        expected = propose(record.load())
        assert record.boxes is not None
        assert record.masks is not None
        assert torch.equal(record.boxes, expected.boxes)
        assert torch.equal(record.masks, expected.masks[:])
    shown = closeup("propose", photos, "--out", "deep/er/proposals.json")
    assert f'--images "{told["data"]}&masks=no" --regions proposals' in shown.out
    assert f"{told['regions']} regions in 4 photos" in shown.out


@pytest.mark.parametrize("regions", ["proposals", "masks"])
def test_a_model_is_adapted_on_them(closeup: Run, photos: Path, small_clip_folder: Path, regions: str) -> None:
    closeup("propose", photos, "--out", "proposals.json", "--limit", "30")
    ran = closeup(
        "adapt", "clipself", "--images", "coco:proposals.json?images=photos", "--regions", regions,
        "--regions-from", "data", "--model", small_clip_folder, "--out", "adapted", "--size", "32", "--steps", "2",
        "--batch-size", "2", "--workers", "0", "--report", "none",
    )  # fmt: skip
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("regions", ["proposals", "masks"])
def test_photos_without_labels_need_no_file(
    closeup: Run, photos: Path, small_clip_folder: Path, tmp_path: Path, regions: str
) -> None:
    ran = closeup(
        "adapt", "clipself", "--images", photos, "--regions", regions, "--cache", "cache", "--model",
        small_clip_folder, "--out", "adapted", "--size", "32", "--steps", "2", "--batch-size", "4", "--workers", "0",
        "--report", "none", "--precompute",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert len(list((tmp_path / "cache" / "found-regions").rglob("*.npz"))) == 3
    card = json.loads((tmp_path / "adapted" / "card.json").read_text(encoding="utf-8"))
    assert card["config"]["regions_from"] == "auto"


def test_options_are_those_of_the_policy(closeup: Run, photo: Path, tmp_path: Path) -> None:
    options = ("--limit", 5, "--side", 40, "--smallest", 0.02, "--largest", 0.5, "--duplicate", 0.7)
    assert closeup("propose", photo, "--out", "few.json", *options).code == 0
    policy = ProposalPolicy(limit=5, side=40, smallest=0.02, largest=0.5, duplicate=0.7)
    rows = json.loads((tmp_path / "few.json").read_text(encoding="utf-8"))["annotations"]
    expected = propose(open_image(photo), policy).boxes
    assert [row["bbox"][:2] for row in rows] == expected[:, :2].tolist()


def test_pictures_show_the_boxes(closeup: Run, photos: Path, tmp_path: Path) -> None:
    ran = closeup("propose", photos, "--out", "out/found.json", "--pictures", "2", "--json")
    assert ran.code == 0, ran.err
    assert files_below(tmp_path / "out") == ["found.json", "found/a.png", "found/b.png"]
    assert ran.json["written"] == ["out/found.json", "out/found/a.png", "out/found/b.png"]
    with PIL.Image.open(tmp_path / "out" / "found" / "a.png") as drawn:
        assert drawn.width % 64 == 0


def test_a_bad_photo_stops_no_other(closeup: Run, photos: Path, tmp_path: Path) -> None:
    (photos / "bad.png").write_bytes(b"no picture")
    ran = closeup("propose", photos, photos / "gone.png", "--out", "found.json", "--json")
    assert ran.code == 1
    assert [Path(row["photo"]).name for row in ran.json["failed"]] == ["gone.png", "bad.png"]
    assert ran.err.splitlines()[-1] == "closeup: 2 failed, 3 done."
    assert len(json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["images"]) == 3


def test_a_photo_of_one_colour_or_of_one_pixel_has_a_region(closeup: Run, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    PIL.Image.new("RGB", (40, 30), (9, 90, 9)).save(tmp_path / "plain" / "flat.png")
    PIL.Image.new("RGB", (1, 1)).save(tmp_path / "plain" / "pixel.png")
    ran = closeup("propose", "plain", "--out", "plain.json", "--json")
    assert ran.code == 0, ran.err
    assert [row["regions"] for row in ran.json["photos"]] == [1, 1]


Words = Callable[[Path], list[object]]

CASES: dict[str, tuple[Words, str]] = {
    "missing photo": (lambda p: [p / "gone.png", "--out", "x.json"], "gone.png"),
    "not an image": (lambda p: [p / "text.png", "--out", "x.json"], "text.png"),
    "nothing but broken photos": (lambda p: [p / "broken", "--out", "x.json"], "None of the 2 photos"),
    "no photo": (lambda p: ["--out", "x.json"], "No photos"),
    "no output": (lambda p: [p / "a.png"], "--out"),
    "output is no json": (lambda p: [p / "a.png", "--out", "x.png"], ".json"),
    "output below a file": (lambda p: [p / "a.png", "--out", p / "a.png" / "x.json"], "a.png"),
    "pictures would replace photos": (lambda p: [p, "--out", f"{p}.json", "--pictures", "1"], "one of the photos"),
    "pictures below none": (lambda p: [p / "a.png", "--out", "x.json", "--pictures", "-1"], "--pictures -1"),
    "no side": (lambda p: [p / "a.png", "--out", "x.json", "--side", "0"], "`side`"),
    "no region wanted": (lambda p: [p / "a.png", "--out", "x.json", "--limit", "0"], "`limit`"),
    "share above 1": (lambda p: [p / "a.png", "--out", "x.json", "--largest", "2"], "`largest`"),
    "shares exchanged": (lambda p: [p / "a.png", "--out", "x.json", "--smallest", "0.95"], "`smallest`"),
    "duplicates of anything": (lambda p: [p / "a.png", "--out", "x.json", "--duplicate", "0"], "`duplicate`"),
    "a share in words": (lambda p: [p / "a.png", "--out", "x.json", "--smallest", "few"], "few"),
}


@pytest.mark.parametrize(("words", "told"), CASES.values(), ids=CASES)
def test_what_is_wrong_is_one_line_and_nothing_written(closeup: Run, tmp_path: Path, words: Words, told: str) -> None:
    folder = tmp_path / "photos"
    write_photo(folder / "a.png")
    (folder / "broken").mkdir()
    for name in ("text.png", "broken/one.png", "broken/two.png"):
        (folder / name).write_text("no picture")
    before = files_below(tmp_path)
    ran = closeup("propose", *words(folder))
    assert ran.code == 2, ran.out
    assert told in ran.err
    assert ran.err.startswith("closeup: error: ")
    assert ran.err.count("\n") == 1
    assert files_below(tmp_path) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(closeup: Run, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    ran = closeup("propose", photo, "--out", tmp_path / "closed" / "x.json")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "closed" in ran.err
