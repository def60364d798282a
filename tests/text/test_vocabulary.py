from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closeup.data.class_lists import CLASS_LISTS, class_words
from closeup.errors import InputError
from closeup.text.vocabulary import NAMED, Vocabulary

words = st.lists(st.text("abcdefgh ", min_size=1).filter(str.strip), min_size=1, unique_by=lambda w: w.strip())


def test_names_keep_their_order() -> None:
    vocabulary = Vocabulary([" dog", "grass", "red frisbee"])
    assert list(vocabulary) == ["dog", "grass", "red frisbee"]
    assert len(vocabulary) == 3
    assert vocabulary[2] == "red frisbee"
    assert "Grass" in vocabulary
    assert "gras" not in vocabulary
    assert vocabulary.synonyms == (("dog",), ("grass",), ("red frisbee",))
    assert vocabulary.novel is None
    assert vocabulary.base is None


def test_a_name_is_the_first_of_its_synonyms() -> None:
    vocabulary = Vocabulary(["sofa", "dog"], synonyms={"sofa": ["couch", "Sofa", "couch", "lounge"]})
    assert vocabulary.synonyms == (("sofa", "couch", "lounge"), ("dog",))


def test_base_and_novel_are_two_sides_of_one_mark() -> None:
    assert Vocabulary(["dog", "cat"], novel=["CAT"]).novel == (False, True)
    assert Vocabulary(["dog", "cat"], base=["dog"]) == Vocabulary(["dog", "cat"], novel=["cat"])
    assert Vocabulary(["dog", "cat"], base=[]).base == (False, False)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "at least one"),
        (["dog", " "], "Name 1 is empty"),
        (["dog", "cat", "Dog "], "Names 0 and 2 are the same: 'dog' and 'Dog '"),
        (["STRASSE", "straße"], "Names 0 and 1"),
    ],
)
def test_unusable_names_are_named(names: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Vocabulary(names)


def test_a_single_string_is_no_list_of_letters() -> None:
    with pytest.raises(InputError, match=r"Vocabulary\.parse"):
        Vocabulary("dog, grass")


def test_what_is_no_string_is_refused() -> None:
    with pytest.raises(InputError, match=r"Name 1 is 7 \(int\)"):
        Vocabulary(name for name in ["dog", 7])  # type: ignore[misc]


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"synonyms": {"sofas": ["couch"]}}, "'sofa'"),
        ({"synonyms": {"sofa": "couch"}}, "single string"),
        ({"synonyms": {"sofa": ["couch", ""]}}, "Synonym 1 of 'sofa' is empty"),
        ({"novel": ["sofs"]}, "marked novel"),
        ({"base": ["sofs"]}, "marked base"),
        ({"base": ["sofa"], "novel": ["dog"]}, "give one"),
    ],
)
def test_unusable_synonyms_and_marks_are_named(extra: dict[str, dict[str, list[str]]], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Vocabulary(["sofa", "dog"], **extra)


def test_parse_splits_at_commas() -> None:
    assert Vocabulary.parse("dog, grass,red frisbee ").names == ("dog", "grass", "red frisbee")
    with pytest.raises(InputError, match="Name 1 is empty"):
        Vocabulary.parse("dog,, grass")


def test_index_suggests_near_names() -> None:
    vocabulary = Vocabulary(["dog", "Frisbee"])
    assert vocabulary.index(" frisbee") == 1
    with pytest.raises(InputError, match="'Frisbee'"):
        vocabulary.index("frisbe")


def test_the_hash_covers_order_synonyms_and_marks() -> None:
    forms = [
        Vocabulary(["dog", "cat"]),
        Vocabulary(["cat", "dog"]),
        Vocabulary(["dog", "cat"], synonyms={"dog": ["hound"]}),
        Vocabulary(["dog", "cat"], novel=[]),
        Vocabulary(["dog", "cat"], novel=["dog"]),
    ]
    assert len({form.hash for form in forms}) == len(forms)
    assert Vocabulary(["dog", "cat"]).hash == forms[0].hash


def test_the_classes_of_a_data_set_by_name() -> None:
    separate, joined = Vocabulary.named("ade20k-847"), Vocabulary.named("ade20k-847-joined")
    assert (len(separate), len(joined)) == (847, 847)
    assert separate.synonyms[separate.index("building")] == ("building", "edifice")
    assert separate.synonyms[separate.index("handbag")] == ("handbag", "bag", "pocketbook", "purse")
    assert joined.names[1] == "building, edifice"
    assert joined.synonyms[1] == ("building, edifice",)
    assert [Vocabulary.named(name).novel for name in NAMED] == [None] * 9
    with pytest.raises(InputError, match=r"Unknown vocabulary 'ade20k-148'.*'ade20k-847'"):
        Vocabulary.named("ade20k-148")


def test_every_list_of_classes_with_synonyms_has_a_joined_form() -> None:
    several = {name for name in CLASS_LISTS if any(len(words) > 1 for words in class_words(name))}
    assert {name.removesuffix("-joined") for name in NAMED if name.endswith("-joined")} == several


def test_it_cannot_be_changed_and_can_be_pickled() -> None:
    vocabulary = Vocabulary(["dog", "cat"], synonyms={"dog": ["hound"]})
    with pytest.raises(AttributeError):
        vocabulary.names = ("cat",)  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(vocabulary)) == vocabulary
    assert repr(vocabulary) == "Vocabulary(2 names: 'dog', 'cat')"


@given(words)
def test_every_name_finds_its_own_position(names: list[str]) -> None:
    vocabulary = Vocabulary(names)
    assert [vocabulary.index(name) for name in names] == list(range(len(names)))


@given(words)
def test_a_text_file_keeps_names_and_order(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    path: Path = tmp_path_factory.mktemp("words") / "words.txt"
    path.write_text("\n".join(names), "utf-8")
    assert Vocabulary.from_file(path) == Vocabulary(names)
