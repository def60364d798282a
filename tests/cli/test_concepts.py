"""The verb concepts: any form of captions in, a list out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands import Run, files_below

COCO = {
    "images": [
        {"id": 1, "file_name": "a.jpg", "height": 4, "width": 4},
        {"id": 2, "file_name": "b.jpg", "height": 4, "width": 4},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "caption": "two dogs"},
        {"id": 2, "image_id": 1, "caption": "a dog on grass"},
        {"id": 3, "image_id": 2, "caption": "a dog"},
    ],
}
FORMS = {
    "captions.json": json.dumps(COCO),
    "named.json": json.dumps({"a.jpg": ["two dogs", "a dog on grass"], "b.jpg": "a dog"}),
    "rows.tsv": "a.jpg\ttwo dogs\na.jpg\ta dog on grass\nb.jpg\ta dog\n",
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_captions_gives_the_same_list(closeup: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(FORMS[name], "utf-8")
    ran = closeup("concepts", name, "--min-count", "1", "--out", "found/list.csv", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["pictures"] == 2
    assert ran.json["concepts"] == [{"name": "dog", "pictures": 2}, {"name": "grass", "pictures": 1}]
    assert (tmp_path / "found" / "list.csv").read_text("utf-8") == "dog,2\ngrass,1\n"


def test_a_sentence_a_line_is_a_picture_a_line(closeup: Run, tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("two dogs\na dog on grass\n\n🍾\n", "utf-8")
    ran = closeup("concepts", "captions.txt", "--min-count", "2", "--out", "list.txt")
    assert ran.code == 0, ran.err
    assert "1 concepts named by at least 2 of 3 pictures" in ran.out
    assert (tmp_path / "list.txt").read_text("utf-8") == "dog\n"


def test_the_world_has_concepts(closeup: Run) -> None:
    ran = closeup("concepts", "world?count=30", "--min-count", "2", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["pictures"] == 30
    assert len(ran.json["concepts"]) > 20


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("none.txt",), "no such file"),
        (("broken.json",), "not a json file"),
        (("captions.txt", "--min-count", "0"), "--min-count 0"),
        (("captions.txt", "--min-count", "9"), "Lower --min-count"),
        (("captions.txt", "--tagger", "nltk"), "Unknown tagger"),
        (("captions.txt", "--out", "."), "this is a folder"),
        (("latin.txt",), "not UTF-8"),
    ],
)
def test_a_mistake_is_told_in_a_line_and_leaves_nothing(
    closeup: Run, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "captions.txt").write_text("a dog\n", "utf-8")
    (tmp_path / "broken.json").write_text("{", "utf-8")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    before = files_below(tmp_path)
    ran = (
        closeup("concepts", "--out", "list.txt", *arguments)
        if "--out" not in arguments
        else closeup("concepts", *arguments)
    )
    assert ran.code == 2
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert files_below(tmp_path) == before
