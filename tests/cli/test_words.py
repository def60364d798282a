from __future__ import annotations

from pathlib import Path

import pytest

from closeup.cli.words import read_templates, read_words
from closeup.errors import InputError
from closeup.text import Vocabulary, get_templates


def test_words_on_the_command_line() -> None:
    assert read_words("dog, red frisbee ,grass").names == ("dog", "red frisbee", "grass")
    assert read_words("and/or").names == ("and/or",)


def test_words_in_files(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("dog | puppy\n# a remark\ngrass\n", encoding="utf-8")
    (tmp_path / "words.json").write_text('[{"id": 2, "name": "b"}, {"id": 1, "name": "a"}]', encoding="utf-8")
    (tmp_path / "plain").write_text("one\ntwo\n", encoding="utf-8")
    assert read_words(str(tmp_path / "words.txt")).synonyms == (("dog", "puppy"), ("grass",))
    assert read_words(str(tmp_path / "words.json")).names == ("a", "b")
    assert read_words(str(tmp_path / "plain")).names == ("one", "two")


def test_words_of_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_words("ade20k-847").names == Vocabulary.named("ade20k-847").names
    monkeypatch.chdir(tmp_path)
    (tmp_path / "voc-20").write_text("mine\n", encoding="utf-8")
    assert read_words("voc-20").names == ("mine",)


def test_a_very_long_list_is_no_file() -> None:
    names = [f"word number {index}" for index in range(1000)]
    assert read_words(", ".join(names)).names == tuple(names)


@pytest.mark.parametrize("text", ["", "  ", "missing.txt", "missing.json"])
def test_no_words(text: str) -> None:
    with pytest.raises(InputError, match="--words"):
        read_words(text)


def test_templates_by_name_or_file(tmp_path: Path) -> None:
    assert read_templates("vild-14") == get_templates("vild-14")
    (tmp_path / "mine.txt").write_text("# source: me\na drawing of a {}\n", encoding="utf-8")
    assert read_templates(str(tmp_path / "mine.txt")).formats == ("a drawing of a {}",)
