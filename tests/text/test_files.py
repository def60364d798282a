from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from closeup.errors import DataError, InputError
from closeup.text.vocabulary import Vocabulary
from goldens import SHARED


def shared(name: str) -> Path:
    path = SHARED / "data" / name
    if not path.exists():
        pytest.skip(f"no {path}")
    return path


def write(path: Path, content: str) -> Path:
    path.write_bytes(content.encode())
    return path


def test_a_text_file_has_synonyms_comments_and_commas(tmp_path: Path) -> None:
    content = "\ufeff# my words\r\nsofa | couch|lounge\r\n\r\n  c#, the language \r\nhôtel\r\n"
    vocabulary = Vocabulary.from_file(write(tmp_path / "words.txt", content))
    assert vocabulary.synonyms == (("sofa", "couch", "lounge"), ("c#, the language",), ("hôtel",))


def test_names_in_a_file_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Names 0 and 1"):
        Vocabulary.from_file(write(tmp_path / "words.txt", "dog\nDog"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("words.txt", b"# nothing\n\n | \n", "lists no names"),
        ("words.txt", b"dog\n\xff\xfe", "not UTF-8 .byte 4"),
        ("words.json", b"{", "not json"),
        ("words.json", b"3", "holds a int"),
        ("words.json", b'{"images": []}', "keys .'images'."),
        ("words.json", b'{"categories": []}', "lists no names"),
        ("words.json", b'[{"id": 1}]', "category 0"),
        ("table.csv", b"Idx,Ratio\n1,2\n", "no column 'Name'"),
        ("table.csv", b"Idx,Name\n1,wall\n2\n", "line 3"),
    ],
)
def test_an_unusable_file_tells_why(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        Vocabulary.from_file(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"words\.txt cannot be read: No such file"):
        Vocabulary.from_file(tmp_path / "words.txt")


def test_json_may_be_a_list_of_names(tmp_path: Path) -> None:
    assert Vocabulary.from_file(write(tmp_path / "w.json", '["dog", "cat"]')).names == ("dog", "cat")


def test_categories_are_sorted_by_id(tmp_path: Path) -> None:
    categories = [{"id": 9, "name": "dog"}, {"id": 2, "name": "cat"}]
    path = write(tmp_path / "instances.json", json.dumps({"images": [], "categories": categories}))
    assert Vocabulary.from_file(path).names == ("cat", "dog")
    assert Vocabulary.from_json(path.rename(tmp_path / "instances.txt")).names == ("cat", "dog")


def test_lvis_categories_have_synonyms_and_marks(tmp_path: Path) -> None:
    categories = [
        {"id": 1, "name": "acorn", "synonyms": ["acorn"], "frequency": "r"},
        {"id": 2, "name": "aerosol_can", "synonyms": ["aerosol_can", "spray_can"], "frequency": "c"},
    ]
    vocabulary = Vocabulary.from_file(write(tmp_path / "lvis.json", json.dumps({"categories": categories})))
    assert vocabulary.synonyms == (("acorn",), ("aerosol_can", "spray_can"))
    assert vocabulary.novel == (True, False)


def test_another_csv_of_the_same_form_splits_at_semicolons(tmp_path: Path) -> None:
    vocabulary = Vocabulary.from_file(write(tmp_path / "info.csv", "Idx,Name\n1,hut;shed\n2,crane\n"))
    assert vocabulary.synonyms == (("hut", "shed"), ("crane",))


def test_the_real_coco_panoptic_categories() -> None:
    path = shared("coco_panoptic_sample/panoptic_coco_categories.json")
    vocabulary = Vocabulary.from_file(path)
    assert len(vocabulary) == 133
    assert vocabulary.names[0] == "person"
    assert vocabulary.names[-1] == "rug-merged"
    assert "wall-other-merged" in vocabulary


def test_the_real_lvis_categories() -> None:
    path = shared("lvis_sample/lvis_val_100.json")
    vocabulary = Vocabulary.from_file(path)
    categories = json.loads(path.read_text())["categories"]
    assert vocabulary.novel is not None
    assert sum(vocabulary.novel) == Counter(row["frequency"] for row in categories)["r"] == 454
    assert vocabulary.synonyms[vocabulary.index("aerosol_can")] == ("aerosol_can", "spray_can")


def test_the_real_ade20k_names_get_their_spaces_back() -> None:
    path = shared("ade20k_sample/objectInfo150.csv")
    vocabulary = Vocabulary.from_file(path)
    cells = [line.split(",")[-1] for line in path.read_text().strip().split("\n")[1:]]
    assert len(vocabulary) == 150
    assert [";".join(words).replace(" ", ";") for words in vocabulary.synonyms] == cells
    assert vocabulary.synonyms[58] == ("screen door", "screen")
    assert vocabulary.synonyms[63] == ("blind", "screen")
    assert vocabulary.synonyms[130] == ("screen", "silver screen", "projection screen")


def test_the_text_form_of_ade20k_agrees_with_the_csv(tmp_path: Path) -> None:
    csv = "Idx,Ratio,Train,Val,Stuff,Name\n1,0.1,1,1,0,door;double;door\n2,0.1,1,1,1,wall\n"
    text = "Idx\tRatio\tTrain\tVal\tName\n1\t0.1\t1\t1\tdoor, double door\n2 \t0.1\t1\t1\twall \n"
    read = [Vocabulary.from_file(write(tmp_path / name, body)) for name, body in [("o.csv", csv), ("o.txt", text)]]
    assert read[0] == read[1]
    assert read[0].synonyms == (("door", "double door"), ("wall",))
