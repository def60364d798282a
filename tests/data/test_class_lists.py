from __future__ import annotations

import csv
import json

import pytest

from closeup.data import ade20k
from closeup.data.ade20k_full import stored_ids
from closeup.data.class_lists import CLASS_LISTS, class_names, class_words, distinct_names
from closeup.data.coco_stuff import STORED, THINGS
from closeup.errors import InputError
from goldens import SHARED

ADE = SHARED / "data" / "ade20k_sample" / "objectInfo150.csv"
PANOPTIC = SHARED / "data" / "coco_panoptic_sample" / "sample_data" / "panoptic_examples.json"


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("ade20k-150", "wall", "flag"),
        ("ade20k-847", "wall", "adding machine"),
        ("cityscapes-19", "road", "bicycle"),
        ("coco-stuff-171", "person", "wood"),
        ("pascal-context-59", "aeroplane", "wood"),
        ("pascal-context-459", "accordion", "wool"),
        ("voc-20", "aeroplane", "tvmonitor"),
    ],
)
def test_every_list_has_as_many_classes_as_its_name_says(name: str, first: str, last: str) -> None:
    names = class_names(name)
    assert len(names) == len(class_words(name)) == int(name.rpartition("-")[2])
    assert (names[0], names[-1]) == (first, last)
    assert len({each.casefold() for each in names}) == len(names)
    for each, words in zip(names, class_words(name), strict=True):
        assert each in words
        assert all(word == word.strip() != "" for word in words)
        assert len(set(words)) == len(words)


def test_an_unknown_list_is_named() -> None:
    assert len(CLASS_LISTS) == 7
    with pytest.raises(InputError, match=r"Unknown list of classes 'ade20k-846'.*Did you mean 'ade20k-847'"):
        class_words("ade20k-846")


def test_a_class_is_called_by_a_word_of_its_own() -> None:
    rows = [["bag", "purse"], ["bag"], ["cat", "bag"], ["dog", "cat"], ["purse", "bag"]]
    assert distinct_names(rows) == ("purse", "bag", "cat", "dog", "purse, bag")


@pytest.mark.skipif(not ADE.is_file(), reason=f"no {ADE}")
def test_ade20k_words_are_those_of_the_official_table() -> None:
    with ADE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, words, thing in zip(rows, class_words("ade20k-150"), ade20k.THINGS, strict=True):
        # The table breaks names of several words at their spaces too.
        assert row["Name"].split(";") == [part for word in words for part in word.split(" ")]
        assert thing == (row["Stuff"] == "0")


def test_the_full_release_lists_its_objects_by_the_alphabet() -> None:
    # Its first 3,100 objects are in order, so a name that is not beside its own id would stand out.
    listed = sorted(zip(stored_ids(), (", ".join(words) for words in class_words("ade20k-847")), strict=True))
    assert len({stored for stored, _ in listed}) == 847
    ordered = [words.replace("-", " ") for stored, words in listed if stored <= 3100]
    assert len(ordered) == 827
    assert ordered == sorted(ordered)


def test_the_two_ade20k_lists_agree_on_the_words_of_what_they_share() -> None:
    small, large = (set(class_words(name)) for name in ("ade20k-150", "ade20k-847"))
    assert {words[0] for words in small - large} == {"door", "television", "crt screen"}


def test_pascal_lists_are_parts_of_each_other() -> None:
    everything = class_names("pascal-context-459")
    frequent = class_names("pascal-context-59")
    assert list(everything) == sorted(everything)
    assert [name for name in everything if name in frequent] == list(frequent)
    # VOC's dining table is among the tables of PASCAL Context.
    assert set(class_names("voc-20")) - set(frequent) == {"diningtable"}


@pytest.mark.skipif(not PANOPTIC.is_file(), reason=f"no {PANOPTIC}")
def test_coco_stuff_has_the_ids_of_coco() -> None:
    names = class_names("coco-stuff-171")
    known = dict(zip(STORED, names, strict=True))
    categories = json.loads(PANOPTIC.read_text())["categories"]
    things = [row for row in categories if row["isthing"]]
    assert [row["name"] for row in sorted(things, key=lambda row: row["id"])] == list(names[:THINGS])
    # Panoptic categories beyond 182 are several of the grounds together.
    kept = {row["id"] - 1: row["name"] for row in categories if row["id"] <= 182}
    assert len(kept) == 80 + 36
    assert {stored: known[stored] for stored in kept} == kept
