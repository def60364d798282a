from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from pycocotools.coco import COCO

import closeup.predict as predict
from closeup.data.rle import decode_mask
from closeup.heads.mask_proposer import load_mask_proposer, new_mask_proposer
from closeup.heads.segmenter import load_segmenter, new_segmenter
from closeup.heads.trained import save_head
from closeup.models import Clip, load
from closeup.predict.catseg import CatSegScorer
from closeup.predict.maskclip import MaskClipScorer
from closeup.predict.scorers import Scorer
from closeup.predict.segment import segment_by
from closeup.predict.segment_masks import OvSegScorer
from commands import Run, files_below, write_photo
from tiny_towers import randomise


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


SMALL = {"queries": 5, "channels": 32, "hidden": 16, "heads": 2, "layers": 1, "feed_forward": 32, "words_hidden": 24}
NARROW: dict[str, object] = {
    "hidden": 16, "heads": 2, "window": 4, "appearance": 8, "meaning": 8, "decoder": (16, 16), "guidance": (8, 8),
    "guides": (6, 4), "padding": 8, "tune": "nothing", "route": "value",
}  # fmt: skip


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, clip = tmp_path_factory.mktemp("heads"), load("tiny", device="cpu", precision="fp32")
    words, novel = ("dog", "grass"), (False, False)
    masks = new_mask_proposer(clip, words, novel, templates="simple", size=64, config=SMALL)
    catseg = new_segmenter(clip, words, novel, templates="simple", size=48, config=NARROW)
    for made in (masks, catseg):
        randomise(made.head, 0)
    return {"masks": save_head(masks, folder / "masks"), "catseg": save_head(catseg, folder / "catseg")}


def test_each_method_is_that_of_python(closeup: Run, photo: Path, heads: dict[str, Path], tmp_path: Path) -> None:
    clip = load("tiny", device="cpu", precision="fp32")
    masks, catseg = load_mask_proposer(heads["masks"], clip=clip), load_segmenter(heads["catseg"], clip=clip)
    np.savez(tmp_path / "photo.npz", masks=np.eye(48, 64, dtype=bool)[None])
    methods: dict[str, tuple[tuple[object, ...], Scorer]] = {
        "maskclip": (("--denoising", "0.2", "--smoothing", "0"), MaskClipScorer(clip, denoising=0.2, smoothing=None)),
        "ovseg": (("--masks", heads["masks"], "--weight", "0.4", "--gaps"), OvSegScorer(clip, masks, 0.4, gaps=True)),
        "catseg": (("--head", heads["catseg"], "--windows"), CatSegScorer(catseg, windows=True)),
    }
    for name, (more, scorer) in methods.items():
        out = tmp_path / name
        ran = closeup(
            "segment", photo, "--words", "dog, grass, sky", "--method", name, *more, "--precision", "fp32",
            "--out", out, "--format", "npz",
        )  # fmt: skip
        assert ran.code == 0, ran.err
        expected = segment_by(scorer, photo, ["dog", "grass", "sky"])
        with np.load(out / "photo.npz") as arrays:
            assert torch.equal(torch.from_numpy(arrays["label_map"]), expected.label_map), name
    given = closeup(
        "segment", photo, "--words", "dog, grass", "--method", "ovseg", "--masks", tmp_path, "--out", tmp_path / "g",
        "--format", "npz", "--precision", "fp32",
    )  # fmt: skip
    assert given.code == 0, given.err
    with np.load(tmp_path / "g" / "photo.npz") as arrays:
        assert ((arrays["label_map"] >= 0) == np.eye(48, 64, dtype=bool)).all()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--weight", "0.4"), "--weight is an option of --method ovseg, not dense"),
        (("--weight", "0"), "--weight is an option of --method ovseg, not dense"),
        (("--method", "maskclip", "--route", "attention"), "--route attention is an option of --method dense"),
        (("--method", "maskclip", "--denoising", "2"), "give a probability from 0 to 1"),
        (("--method", "catseg", "--window", "32"), "--window is an option of --method dense"),
        (("--method", "catseg", "--size", "64"), "looks at photos at the size of its head"),
        (("--method", "ovseg", "--masks", "nowhere"), "no such file, folder or proposer"),
        (("--method", "ovseg", "--masks", "found", "--weight", "0.4"), "named by the CLIP alone"),
        (("--method", "ovseg", "--masks", "found", "--looks", "mask-prompt"), "no mask prompts"),
        (("--method", "catseg", "--head", "nowhere"), "no trained head"),
    ],
)
def test_a_method_has_its_own_options(closeup: Run, photo: Path, more: tuple[str, ...], message: str) -> None:
    ran = closeup("segment", photo, "--words", "dog, grass", *more)
    assert ran.code == 2
    assert message in ran.err
    assert len(ran.err.splitlines()) == 1


def test_segmentation_is_measured_by_every_method(closeup: Run, heads: dict[str, Path]) -> None:
    words = ("evaluate", "segmentation", "--data", "world?count=2&size=64", "--workers", "0", "--json")
    for more in (
        ("--method", "maskclip"),
        ("--method", "ovseg", "--masks", heads["masks"]),
        ("--method", "ovseg", "--masks", "truth"),
        ("--method", "catseg", "--head", heads["catseg"]),
    ):
        ran = closeup(*words, *more)
        assert ran.code == 0, ran.err
        assert {"miou", "pacc"} <= ran.json.keys()
    assert any(key in ran.json for key in ("miou novel", "miou base"))
