"""The verbs train and detect: from the world to a detector, from a detector to boxes in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from closeup.data.rle import decode_mask
from closeup.data.world import World
from closeup.heads.rpn import load_proposer
from closeup.heads.saved import load_detector
from closeup.models import load
from closeup.predict import detect, detect_zero_shot, evaluate_detection, evaluate_zero_shot_detection, propose_boxes
from commands import Run, Write, files_below

WORDS = ("--words", "star, circle, a zebra")
SHORT = ("--steps", "2", "--batch-size", "4", "--workers", "0", "--size", "64", "--preset", "tiny")


def train(*more: object) -> list[object]:
    return ["train", "fvit", "--images", "world?count=8&size=64", "--model", "tiny", "--out", "detector", *SHORT, *more]


def test_a_detector_is_trained_and_finds_objects_in_photos(closeup: Run, photos: Path, tmp_path: Path) -> None:
    ran = closeup(*train("--dtype", "fp16", "--json"))
    assert ran.code == 0, ran.err
    assert {"loss", "classes", "boxes", "objectness", "proposal_boxes"} <= ran.json["figures"].keys()
    found = closeup(
        "detect", photos, "--detector", "detector", *WORDS, "--threshold", "0", "--limit", "3",
        "--out", "found", "--format", "png", "coco", "--json",
    )  # fmt: skip
    assert found.code == 0, found.err
    assert found.json["words"] == ["star", "circle", "a zebra"]
    assert [len(photo["objects"]) for photo in found.json["photos"]] == [3, 3, 3]
    for photo in found.json["photos"]:
        height, width = photo["size"]
        for each in photo["objects"]:
            x0, y0, x1, y1 = each["box"]
            assert -1e-3 <= x0 <= x1 <= width + 1e-3
            assert -1e-3 <= y0 <= y1 <= height + 1e-3
    document = json.loads((tmp_path / "found" / "coco.json").read_text())
    assert len(document["annotations"]) == 9
    assert (tmp_path / "found" / "a.png").is_file()
    again = closeup(*train("--resume"))
    assert again.code == 0, again.err
    assert "Written: detector" in again.out


def test_a_detector_learns_masks_and_draws_them(closeup: Run, photos: Path, tmp_path: Path) -> None:
    ran = closeup(*train("--masks", "--json"))
    assert ran.code == 0, ran.err
    assert ran.json["figures"]["masks"] > 0
    found = closeup(
        "detect", photos, "--detector", "detector", *WORDS, "--threshold", "0", "--limit", "3",
        "--out", "found", "--format", "png", "coco",
    )  # fmt: skip
    assert found.code == 0, found.err
    document = json.loads((tmp_path / "found" / "coco.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in document["images"]}
    result = detect(load_detector("detector"), photos / "a.png", ["star", "circle", "a zebra"], threshold=0.0, limit=3)
    assert result.masks is not None
    assert result.masks.shape == (3, *result.size)
    for row in document["annotations"]:
        decode_mask(row["segmentation"], *sizes[row["image_id"]], "a row")
    measured = closeup(
        "evaluate", "detection", "--detector", "detector", "--data", "world?size=64", "--limit", "2", "--masks"
    )
    assert measured.code == 0, measured.err
    assert "IoU of 0.5 of masks" in measured.out
    alone = closeup("evaluate", "detection", "--data", "world?size=64", "--masks")
    assert alone.code == 2
    assert "Give --detector, or drop --masks" in alone.err


def test_a_proposer_is_trained_and_a_clip_names_its_boxes(closeup: Run, photos: Path, tmp_path: Path) -> None:
    words = ["rpn" if word == "fvit" else "proposer" if word == "detector" else word for word in train()]
    ran = closeup(*words, "--json")
    assert ran.code == 0, ran.err
    assert {"loss", "objectness", "proposal_boxes"} <= ran.json["figures"].keys()
    assert "classes" not in ran.json["figures"]
    found = closeup("detect", photos, "--proposer", "proposer", *WORDS, "--threshold", "0", "--limit", "3", "--json")
    assert found.code == 0, found.err
    photo = photos / "a.png"
    proposed = propose_boxes(load_proposer(tmp_path / "proposer"), photo)
    expected = detect_zero_shot(
        load("tiny"), photo, ["star", "circle", "a zebra"], boxes=proposed.boxes, logits=proposed.logits,
        threshold=0.0, limit=3,
    )  # fmt: skip
    told = next(each for each in found.json["photos"] if each["photo"].endswith("photos/a.png"))
    assert [each["score"] for each in told["objects"]] == pytest.approx(expected.scores.tolist(), abs=1e-4)
    wrong = closeup("detect", photos, "--detector", "proposer", *WORDS)
    assert wrong.code == 2
    assert "is a head of the kind 'rpn', and 'fvit' or 'c4' or 'denseclip-detector' is wanted" in wrong.err


def train_c4(*more: object) -> list[object]:
    words = ["c4" if word == "fvit" else "c4-detector" if word == "detector" else word for word in train()]
    return [*words, "--proposer", "proposer", *more]


def test_a_detector_whose_clip_learns_finds_objects_too(closeup: Run, photos: Path, tmp_path: Path) -> None:
    words = ["rpn" if word == "fvit" else "proposer" if word == "detector" else word for word in train()]
    assert closeup(*words).code == 0
    ran = closeup(*train_c4("--loss", "weighted", "--objectness", "sigmoid", "--dtype", "fp16", "--json"))
    assert ran.code == 0, ran.err
    assert {"loss", "classes", "boxes"} <= ran.json["figures"].keys()
    card = json.loads((tmp_path / "c4-detector" / "card.json").read_text())
    assert card["head"] == "c4"
    assert card["proposer"]["name"] == str(tmp_path / "proposer")
    assert card["trained"]["base"]["proposer"] == card["proposer"]["fingerprint"]
    assert (card["config"]["loss"], card["config"]["objectness"]) == ("weighted", "sigmoid")
    asked = ("detect", photos, "--detector", "c4-detector", *WORDS, "--threshold", "0", "--limit", "3", "--json")
    found = closeup(*asked)
    assert found.code == 0, found.err
    assert [len(photo["objects"]) for photo in found.json["photos"]] == [3, 3, 3]
    (photo,) = (each for each in found.json["photos"] if each["photo"].endswith("photos/a.png"))
    expected = detect(
        load_detector("c4-detector"), photos / "a.png", ["star", "circle", "a zebra"], threshold=0.0, limit=3
    )
    assert [each["score"] for each in photo["objects"]] == pytest.approx(expected.scores.tolist(), abs=1e-4)
    measured = closeup("evaluate", "detection", "--detector", "c4-detector", "--data", "world?size=64", "--limit", "2")
    assert measured.code == 0, measured.err
    again = closeup(*train_c4("--loss", "weighted", "--objectness", "sigmoid", "--resume"))
    assert again.code == 0, again.err
    other = closeup(*train_c4("--resume"))
    assert other.code == 2
    assert "begun with the config" in other.err
    (tmp_path / "proposer").rename(tmp_path / "elsewhere")
    lost = closeup(*asked)
    assert lost.code == 2
    assert "proposer', which is not there, nor beside it. Put it back" in lost.err


def test_a_detector_is_measured_on_base_and_novel_words(closeup: Run, tmp_path: Path) -> None:
    assert closeup(*train()).code == 0
    words = ("evaluate", "detection", "--detector", "detector", "--data", "world?size=64", "--limit", "4")
    ran = closeup(*words, "--json", "--out", "report.json")
    assert ran.code == 0, ran.err
    report = evaluate_detection(load_detector("detector"), World("val", count=4, size=(64, 64)))
    assert ran.json["summary"] == pytest.approx(report.to_dict()["summary"])
    assert set(ran.json["summary"]) == {
        f"{group} {what}" for group in ("novel", "base", "all") for what in ("AP50", "AP")
    }
    assert {row["class"] for row in ran.json["per_class"] if row["group"] == "novel"} <= set(World.novel)
    assert json.loads((tmp_path / "report.json").read_text())["images"] == 4
    shown = closeup(*words)
    assert "novel AP50" in shown.out


def test_a_clip_alone_names_boxes_that_are_given(
    closeup: Run, photo: Path, write: Write, small_clip_folder: Path
) -> None:
    boxes = [[0, 0, 20, 20], [10, 10, 40, 30]]
    clip = ("--model", small_clip_folder, "--precision", "fp32")
    ran = closeup("detect", photo, "--regions", write("boxes.json", boxes), *WORDS, *clip, "--threshold", "0", "--json")
    assert ran.code == 0, ran.err
    expected = detect_zero_shot(
        load(small_clip_folder, precision="fp32"), photo, ["star", "circle", "a zebra"], boxes=boxes, threshold=0.0
    )
    told = ran.json["photos"][0]["objects"]
    assert [each["word"] for each in told] == list(expected.words)
    assert [each["score"] for each in told] == pytest.approx(expected.scores.tolist(), abs=1e-4)
    shown = closeup("detect", photo, *WORDS, *clip, "--limit", "2", "--threshold", "0")
    assert shown.code == 0, shown.err
    assert "x0 y0 x1 y1" in shown.out


def test_a_clip_alone_is_measured_with_true_boxes_and_with_a_proposers(
    closeup: Run, tmp_path: Path, small_clip_folder: Path
) -> None:
    novel = tmp_path / "novel.txt"
    novel.write_text("star\n", encoding="utf-8")
    clip = ("--model", small_clip_folder, "--precision", "fp32", "--novel", novel)
    words = ("evaluate", "detection", "--data", "world?size=64", "--limit", "2", *clip)
    ran = closeup(*words, "--json")
    assert ran.code == 0, ran.err
    world, loaded = World("val", count=2, size=(64, 64)), load(small_clip_folder, precision="fp32")
    expected = evaluate_zero_shot_detection(loaded, world, novel=("star",))
    assert ran.json["summary"] == expected.to_dict()["summary"]
    assert closeup(*words, "--boxes", "found").code == 0
    for wrong, message in (
        (("--detector", "none", *clip), "Drop --novel"),
        (("--proposer", "none"), "no trained head"),
        (("--proposer", "none", "--boxes", "found"), "--proposer brings its own boxes"),
        (("--detector", "none", "--size", "32", "--how", "crop"), "Drop --how, --size"),
    ):
        told = closeup("evaluate", "detection", "--data", "world?size=64", *wrong)
        assert told.code == 2
        assert message in told.err


Words = Callable[[Path], list[object]]

CASES: dict[str, tuple[Words, str]] = {
    "no detector there": (lambda p: ["detect", p, *WORDS, "--detector", "none"], "no trained head"),
    "two sources of boxes": (
        lambda p: ["detect", p, *WORDS, "--detector", "none", "--regions", "boxes.json"],
        "Give one of them",
    ),
    "threshold above 1": (lambda p: ["detect", p, *WORDS, "--threshold", "2"], "--threshold 2"),
    "limit of none": (lambda p: ["detect", p, *WORDS, "--limit", "0"], "--limit 0"),
    "overlap above 1": (lambda p: ["detect", p, *WORDS, "--overlap", "2"], "overlap 2"),
    "no words": (lambda p: ["detect", p], "words"),
    "unknown model": (lambda p: [*train(), "--model", "ViT-B-61/openai"], "'ViT-B-16/openai'"),
    "nothing to measure": (lambda p: ["evaluate", "detection", "--detector", "none"], "no trained head"),
    "measured on nothing": (lambda p: ["evaluate", "detection", "--detector", p, "--limit", "0"], "--limit 0"),
    "no proposer there": (lambda p: train_c4(), "no trained head"),
    "no proposer named": (lambda p: train_c4()[:-2], "proposer"),
    "unknown class loss": (lambda p: train_c4("--loss", "focl"), "focal"),
    "unknown head": (lambda p: ["train", "fvti", "--images", "world"], "fvit"),
    "unlabelled photos": (lambda p: ["train", "fvit", "--images", p, "--out", "d", *SHORT], "no things to learn"),
    "unknown novel word": (lambda p: [*train(), "--novel", novel(p)], "'unicorn' is no thing"),
    "nothing to resume": (lambda p: [*train(), "--resume"], "nothing to resume"),
}


def novel(photos: Path) -> Path:
    path = photos / "novel.txt"
    path.write_text("star\nunicorn\n")
    return path


@pytest.mark.parametrize(("words", "told"), CASES.values(), ids=CASES)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    closeup: Run, photos: Path, tmp_path: Path, words: Words, told: str
) -> None:
    asked = words(photos)
    before = files_below(tmp_path)
    ran = closeup(*asked)
    assert ran.code == 2, ran.out
    assert told in ran.err
    assert ran.err.startswith("closeup: error: ")
    assert ran.err.count("\n") == 1
    assert files_below(tmp_path) == before
