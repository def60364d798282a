"""The verb reproduce: measured or made again, written, and carried over."""

from __future__ import annotations

import json
from pathlib import Path

import PIL.Image
import pytest

from closeup.reproduce.registry import REPRODUCTIONS
from commands import Run


def test_the_models_that_ship_are_measured(closeup: Run, tmp_path: Path) -> None:
    ran = closeup("reproduce", "clipself", "--quick", "--json")
    assert ran.code == 0, ran.err
    keys = ["regions", "sizes", "forgetting", "blends", "windows"]
    assert [table["key"] for table in ran.json["tables"]] == keys
    stored = json.loads((tmp_path / "results" / "clipself-quick.json").read_text())
    assert stored["tables"] == ran.json["tables"]
    for table in stored["tables"]:
        assert table["rows"]
        assert all(0 <= row["here"]["mean"] <= 100 for row in table["rows"])
        assert table["stamp"]["command"] == "closeup reproduce clipself --quick"
    page = (tmp_path / "docs" / "results" / "clipself-quick.md").read_text()
    for picture in ("clipself-quick-sizes.png", "clipself-quick-kmeans.png", "clipself-quick-blends.png"):
        assert f"({picture})" in page
        with PIL.Image.open(tmp_path / "docs" / "results" / picture) as drawn:
            assert drawn.width > 200
    assert "Not measured yet: sources, splits, blocks, size" in page


@pytest.mark.parametrize(
    ("name", "keys", "picture", "missing"),
    [
        ("regionclip", ["zero-shot", "forgetting"], "named", "losses"),
        ("detection", ["shipped", "fusion"], "found", "fvit, c4"),
    ],
)
def test_other_papers_are_measured_the_same_way(
    closeup: Run, tmp_path: Path, name: str, keys: list[str], picture: str, missing: str
) -> None:
    ran = closeup("reproduce", name, "--quick", "--json")
    assert ran.code == 0, ran.err
    assert [table["key"] for table in ran.json["tables"]] == keys
    assert all(0 <= row["here"]["mean"] <= 100 for table in ran.json["tables"] for row in table["rows"])
    page = (tmp_path / "docs" / "results" / f"{name}-quick.md").read_text()
    assert f"({name}-quick-{picture}.png)" in page
    assert f"Not measured yet: {missing} (`closeup reproduce {name} --quick --train`)" in page


@pytest.mark.slow
def test_models_are_made_again_and_training_goes_on_where_it_was(closeup: Run, tmp_path: Path) -> None:
    command = ("reproduce", "clipself", "--quick", "--train", "--tables", "blocks", "--work", "work", "--json")
    first = closeup(*command)
    assert first.code == 0, first.err
    rows = first.json["tables"][0]["rows"]
    assert {row["name"] for row in rows} == {"1 block", "2 blocks", "4 blocks", "6 blocks"}
    made = {path.name for path in (tmp_path / "work" / "quick").iterdir() if not path.name.endswith("-run")}
    assert made == {"short-blocks-1", "short-blocks-2", "short-blocks-4", "short-proposals"}
    again = closeup(*command)
    assert again.json["tables"][0]["rows"] == rows
    other = closeup("reproduce", "clipself", "--quick", "--tables", "windows", "--json")
    assert [table["key"] for table in other.json["tables"]] == ["windows", "blocks"], "kept from before"


def test_people_see_tables_and_what_follows(closeup: Run) -> None:
    ran = closeup("reproduce", "clipself", "--quick", "--tables", "windows")
    assert ran.code == 0, ran.err
    assert "Window attention in the place of distillation (Table 7)" in ran.out
    assert "points on boxes without training" in ran.out
    assert "Written: results/clipself-quick.json" in ran.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["clipslef"], "Unknown reproduction 'clipslef'. Did you mean 'clipself'?"),
        (["clipself", "--tables", "region"], "Unknown table 'region' of 'clipself'"),
        (["clipself", "--tables", "splits"], "No weights ship for splits: its models are made with --train."),
        (["clipself", "--out", "a-file"], "is a file"),
        (["clipself", "--train", "--work", "a-file"], "--work a-file"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(closeup: Run, tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "a-file").write_text("mine")
    ran = closeup("reproduce", *words)
    assert ran.code == 2
    assert message in ran.err
    assert len(ran.err.splitlines()) == 1


def test_every_table_has_words_of_its_own() -> None:
    for name, what in REPRODUCTIONS.items():
        assert what.name == name
        assert len({part.key for part in what.parts}) == len({part.title for part in what.parts}) == len(what.parts)
