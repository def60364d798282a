"""``closeup adapt denseclip --task detect|instances``, and what ``closeup detect`` makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from closeup.data.things import thing_names
from closeup.data.world import World
from commands import Run

SHORT = ("--steps", "2", "--batch-size", "4", "--workers", "0", "--size", "64", "--preset", "tiny")


def adapt(task: str, *more: object) -> list[object]:
    images = ("--images", "world?count=8&size=64", "--out", "mine")
    return ["adapt", "denseclip", "--task", task, *images, *SHORT, *more]


@pytest.mark.parametrize("task", ["detect", "instances"])
def test_things_are_learned_and_found_in_the_words_of_the_head(
    closeup: Run, photos: Path, tmp_path: Path, task: str
) -> None:
    ran = closeup(*adapt(task, "--contexts", "2", "--json"))
    assert ran.code == 0, ran.err
    assert {"loss", "classes", "boxes", "scores"} <= ran.json["figures"].keys()
    card = json.loads((tmp_path / "mine" / "card.json").read_text())
    assert (card["head"], card["config"]["head"]) == (
        "denseclip-detector",
        "mask-rcnn" if task == "instances" else "retinanet",
    )
    assert not any(card["novel"])
    asked = ("detect", photos, "--detector", "mine", "--threshold", "0", "--limit", "3")
    found = closeup(*asked, "--json", "--out", "found", "--format", "coco")
    assert found.code == 0, found.err
    assert tuple(found.json["words"]) == thing_names(World())
    assert [len(photo["objects"]) for photo in found.json["photos"]] == [3, 3, 3]
    rows = json.loads((tmp_path / "found" / "coco.json").read_text())["annotations"]
    assert all(("segmentation" in row and bool(row["segmentation"])) == (task == "instances") for row in rows)
    some = closeup(*asked, "--words", "Star, circle", "--json")
    assert {each["word"] for photo in some.json["photos"] for each in photo["objects"]} <= {"Star", "circle"}
    wrong = closeup(*asked, "--words", "star, cirkle")
    assert wrong.code == 2
    assert (
        "The word 'cirkle' is not among the 24 that 'mine' learned, and it knows no others. Did you mean" in wrong.err
    )
    for options, said in (
        (("--model", "tiny"), "three photos"),
        (("--model", "tiny-clipself"), "'mine' holds its own image tower and words. Leave it out"),
        (("--size", "64"), "--size is about a CLIP alone"),
        (("--objectness", "logit"), "--objectness is about a CLIP alone"),
        (("--templates", "vild-63"), "cannot be put around them now"),
    ):
        tried = closeup(*asked, *options)
        assert tried.code == (0 if said == "three photos" else 2), tried.err
        assert said == "three photos" or said in tried.err
    masks = ("--masks",) if task == "instances" else ()
    measured = closeup(
        "evaluate", "detection", "--detector", "mine", "--data", "world?size=64", "--limit", "2", "--json", *masks
    )
    assert measured.code == 0, measured.err
    assert measured.json["summary"]["novel AP"] is None


def test_a_plain_detector_has_no_words_to_learn_from(closeup: Run, tmp_path: Path) -> None:
    ran = closeup(*adapt("detect", "--plain", "--json"))
    assert ran.code == 0, ran.err
    assert "scores" not in ran.json["figures"]
    assert closeup("detect", "nowhere", "--detector", "mine").code == 2


def test_what_does_not_belong_together_is_said(closeup: Run, photo: Path) -> None:
    ran = closeup(*adapt("detect", "--average", "all"))
    assert ran.code == 2
    assert "--average all is of label maps, and --task detect has none" in ran.err
    ran = closeup(*[word if word != "tiny" else "paper-vit" for word in adapt("instances")])
    assert ran.code == 2
    assert "Unknown preset 'paper-vit'" in ran.err
    ran = closeup("detect", photo)
    assert ran.code == 2
    assert "Give --words, or a --detector" in ran.err
