"""Results of reproductions: figures, files and pages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from closeup.errors import DataError
from closeup.reproduce.page import page
from closeup.reproduce.result import Paper, Picture, Result, Row, Stamp, Table, read_tables
from closeup.reproduce.stamp import stamp

MADE = Stamp("closeup reproduce it", "abc", {"closeup": "1"}, "a machine", "2026-01-02")


def table(key: str, *rows: Row) -> Table:
    return Table(key, f"Title of {key}", "About it.", rows, MADE, ("It is so.",), (Picture("a.png", "A picture."),))


def result(*tables: Table) -> Result:
    return Result("it", "It", "Somebody, 2024", ("one", "two")).with_tables(tables)


def test_a_row_is_the_mean_and_the_sample_deviation_over_seeds() -> None:
    row = Row("ours", "top-1", (1.0, 2.0, 6.0))
    assert row.mean == 3.0
    assert row.spread == pytest.approx(7**0.5)
    assert Row("ours", "top-1", (1.0,)).spread is None


def test_tables_come_back_from_the_file(tmp_path: Path) -> None:
    one = table("one", Row("a", "x", (1.5,), Paper(2.5, "Table 1")), Row("a", "y", (1.0, 3.0)))
    path = result(one).save(tmp_path / "results" / "it.json")
    assert read_tables(path) == (one,)
    stored = json.loads(path.read_text())["tables"][0]["rows"]
    assert stored[0]["paper"] == {"value": 2.5, "source": "Table 1"}
    assert stored[1]["here"] == {"mean": 2.0, "spread": pytest.approx(2**0.5), "seeds": 2, "values": [1.0, 3.0]}
    assert read_tables(tmp_path / "none.json") == ()


def test_a_new_table_takes_the_place_of_the_old_and_all_keep_their_order() -> None:
    old, new, other = table("one", Row("a", "x", (1.0,))), table("one", Row("a", "x", (2.0,))), table("two")
    found = result(other, old).with_tables([new])
    assert [each.key for each in found.tables] == ["one", "two"]
    assert [row.mean for row in found.tables[0].rows] == [2.0]


def test_the_page_shows_every_figure_and_says_what_is_missing() -> None:
    text = page(result(table("one", Row("a", "x", (1.25,), Paper(18.2, "Table 9")), Row("b", "y", (1.0, 3.0)))))
    assert "|  | x | y |" in text
    assert "| a | 1.2 / 18.2 | - |" in text
    assert "| b | - | 2.0 ± 1.4 |" in text
    assert "- It is so." in text
    assert "![A picture.](a.png)" in text
    assert "Paper's figures: Table 9." in text
    assert "`closeup reproduce it`, 2026-01-02, commit abc" in text
    assert "Not measured yet: two" in text


@pytest.mark.parametrize("content", ["{", "[]", '{"tables": [{"key": 1}]}'])
def test_another_file_is_not_taken_for_results(tmp_path: Path, content: str) -> None:
    (tmp_path / "it.json").write_text(content)
    with pytest.raises(DataError, match="not the results of a reproduction"):
        read_tables(tmp_path / "it.json")


def test_a_stamp_says_what_ran() -> None:
    made = stamp("closeup reproduce it")
    assert made.command == "closeup reproduce it"
    assert set(made.versions) == {"closeup", "torch", "open_clip_torch"}
    assert made.commit is None or len(made.commit.rstrip("+")) == 12
