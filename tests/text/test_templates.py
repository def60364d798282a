from __future__ import annotations

from pathlib import Path

import open_clip
import pytest

from closeup.errors import DataError, InputError
from closeup.text.templates import TEMPLATES, Templates, article, get_templates


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("name", 1),
        ("simple", 1),
        ("openai-7", 7),
        ("openai-80", 80),
        ("regionclip-81", 81),
        ("cat-seg", 1),
        ("vild-14", 14),
        ("vild-63", 63),
    ],
)
def test_a_set_has_as_many_sentences_as_its_name_says(name: str, count: int) -> None:
    templates = get_templates(name)
    assert len(templates) == len(set(templates.formats)) == count
    assert templates.source


def test_every_set_is_counted_above() -> None:
    assert set(TEMPLATES) == {
        *("name", "simple", "openai-7", "openai-80", "regionclip-81", "cat-seg", "vild-14", "vild-63")
    }


def test_openai_templates_are_those_of_open_clip() -> None:
    expected = tuple(function("red frisbee") for function in open_clip.OPENAI_IMAGENET_TEMPLATES)
    assert get_templates("openai-80").fill("red frisbee") == expected
    assert get_templates("regionclip-81").fill("red frisbee") == (*expected, "red frisbee.")


def test_vild_63_takes_the_article_and_says_this_is() -> None:
    filled = get_templates("vild-63").fill("apple")
    assert filled[0] == "There is an apple in the scene."
    assert filled[2] == "This is a photo of an apple in the scene."
    assert filled[5] == "itap of an apple."
    assert filled[60] == "This is the embroidered apple."
    assert filled[62] == "This is a painting of a apple."
    assert not any(sentence.startswith(("a", "the")) for sentence in filled)
    assert all("{" not in sentence and sentence.endswith(".") for sentence in filled)


def test_vild_14_lacks_the_full_stop_in_lines_2_to_5() -> None:
    stops = [sentence.endswith(".") for sentence in get_templates("vild-14").formats]
    assert stops == [True, False, False, False, False, *[True] * 9]


def test_the_article_goes_by_the_letter() -> None:
    assert [article(word) for word in ("apple", "Orange", "unicorn", "hour", "dog", "")] == ["an", "an", "an", *"aaa"]


def test_braces_in_a_name_are_only_text() -> None:
    assert Templates("mine", "", ("{article} {} {}",)).fill("{article}{}") == ("a {article}{} {article}{}",)


def test_an_unknown_set_is_suggested() -> None:
    with pytest.raises(InputError, match="'vild-63'"):
        get_templates("vild63")


def test_a_sentence_without_a_place_is_refused() -> None:
    with pytest.raises(InputError, match="Template 1 of 'mine'"):
        Templates("mine", "", ("a {}.", "a photo"))
    with pytest.raises(InputError, match="no sentence"):
        Templates("mine", "", ())


def test_templates_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "aerial.txt"
    path.write_text("# source: me\n# from above\na {} seen from above.\n\n{}\n", "utf-8")
    assert Templates.from_file(path) == Templates("aerial", "me", ("a {} seen from above.", "{}"))
    with pytest.raises(DataError, match=r"absent\.txt"):
        Templates.from_file(tmp_path / "absent.txt")
