from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from pycocotools.coco import COCO

import closeup.predict as predict
from closeup.data.rle import decode_mask
from closeup.models import Clip
from commands import Run, files_below, write_photo


def test_one_photo_is_segmented_as_in_python(closeup: Run, photo: Path, small_clip: Clip, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = closeup(
        "segment", photo, "--words", "dog, grass", "--model", small_clip.name, "--precision", "fp32",
        "--out", out, "--format", "png", "npz", "coco", "--json",
    )  # fmt: skip
    assert ran.code == 0
    assert ran.err == ""
    assert files_below(out) == ["coco.json", "photo.npz", "photo.png"]
    assert ran.json["written"] == [str(out / name) for name in ("photo.png", "photo.npz", "coco.json")]
    expected = predict.segment(small_clip, photo, ["dog", "grass"])
    with np.load(out / "photo.npz") as arrays:
        assert torch.equal(torch.from_numpy(arrays["label_map"]), expected.label_map)
    told = ran.json["photos"][0]
    assert told["size"] == [48, 64]
    shares = {row["word"]: row["share"] for row in told["words"]}
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["dog"] == pytest.approx(float(expected.mask("dog").float().mean()))
    with PIL.Image.open(out / "photo.png") as picture:
        assert picture.width >= 64


def test_a_folder_becomes_one_coco_file(
    closeup: Run, photos: Path, small_clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    ran = closeup(
        "segment", photos, "--words", "dog, grass", "--model", small_clip.name, "--out", out, "--format", "png", "coco"
    )
    assert ran.code == 0
    assert files_below(out) == ["a.png", "b.png", "coco.json", "deep/a.png"]
    assert all(str(out / name) in ran.out for name in files_below(out))
    coco = COCO(out / "coco.json")
    capsys.readouterr()
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == ["a.png", "b.jpg", "a.png"]
    for image in coco.loadImgs(coco.getImgIds()):
        rows = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        masks = [decode_mask(row["segmentation"], image["height"], image["width"], "a row") for row in rows]
        covered = np.stack(masks).sum(axis=0)
        assert (covered == 1).all()


def test_a_bad_file_stops_no_other(closeup: Run, photos: Path, small_clip: Clip, tmp_path: Path) -> None:
    (photos / "bad.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    ran = closeup(
        "segment", photos, photos / "gone.png", "--words", "dog, grass", "--model", small_clip.name,
        "--out", out, "--json",
    )  # fmt: skip
    assert ran.code == 1
    assert len(ran.json["photos"]) == 3
    assert [Path(row["photo"]).name for row in ran.json["failed"]] == ["gone.png", "bad.png"]
    assert "bad.png" in ran.err
    assert "gone.png" in ran.err
    assert ran.err.splitlines()[-1] == "closeup: 2 failed, 3 done."
    assert files_below(out) == ["a.png", "b.png", "deep/a.png"]


def test_a_single_photo_may_become_a_picture_of_any_name(
    closeup: Run, photo: Path, small_clip: Clip, tmp_path: Path
) -> None:
    ran = closeup(
        "segment", photo, "--words", "dog, grass", "--model", small_clip.name, "--out", tmp_path / "deep" / "x.jpg"
    )
    assert ran.code == 0
    assert files_below(tmp_path) == ["deep/x.jpg", "photo.png"]


def test_windows_background_and_words_from_a_file(closeup: Run, photo: Path, small_clip: Clip, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("dog | puppy\ngrass\n", encoding="utf-8")
    base = ("segment", photo, "--words", tmp_path / "words.txt", "--model", small_clip.name, "--json")
    told = closeup(*base, "--window", "24", "--stride", "16", "--size", "64", "--background", "sky").json
    assert told["words"] == ["dog", "grass", "sky"]
    assert closeup(*base, "--background", "1").json["photos"][0]["words"] == []


def test_a_photo_is_never_replaced(closeup: Run, photo: Path, small_clip: Clip, tmp_path: Path) -> None:
    before = photo.read_bytes()
    ran = closeup("segment", photo, "--words", "dog", "--model", small_clip.name, "--out", tmp_path)
    assert ran.code == 2
    assert "photo.png is one of the photos" in ran.err
    assert photo.read_bytes() == before


def test_equal_stems_do_not_meet(closeup: Run, tmp_path: Path, small_clip: Clip) -> None:
    folder = tmp_path / "two"
    write_photo(folder / "x.png")
    write_photo(folder / "x.jpg")
    ran = closeup("segment", folder, "--words", "dog, cat", "--model", small_clip.name, "--out", tmp_path / "out")
    assert ran.code == 0
    assert files_below(tmp_path / "out") == ["x.jpg.png", "x.png.png"]


def test_the_model_that_ships_inside_is_the_default(closeup: Run, photo: Path, tmp_path: Path) -> None:
    ran = closeup("segment", photo, "--words", "red, striped", "--out", tmp_path / "out", "--json")
    assert ran.code == 0
    assert ran.json["model"] == "tiny"
