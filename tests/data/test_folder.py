from __future__ import annotations

import json
from pathlib import Path

import PIL.Image
import pytest

from closeup.data.captions import Captioned, read_captions
from closeup.data.folder import ImageFolder
from closeup.data.record import iterate
from closeup.errors import DataError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("cats/1.png", "cats/10.png", "dogs/2.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (4, 3)).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


def test_records_are_named_by_their_path_below_the_common_folder(photos: Path) -> None:
    reader = ImageFolder(photos)
    assert [record.id for record in iterate(reader)] == ["cats/1.png", "cats/10.png", "dogs/2.png"]
    assert [record.id for record in iterate(ImageFolder(photos / "cats" / "1.png"))] == ["1.png"]
    record = reader[1]
    assert (record.size, record.captions, record.count) == (None, (), 0)
    assert record.load().size == (4, 3)
    assert (reader.names, reader.things) == ((), ())


def test_captions_beside_the_images(photos: Path) -> None:
    (photos / "cats" / "1.txt").write_text("A cat.\n\n On a mat. \n")
    reader = ImageFolder(photos, captions="sidecar")
    assert [record.captions for record in iterate(reader)] == [("A cat.", "On a mat."), (), ()]


def test_captions_of_one_file(photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "captions.tsv"
    table.write_text('cats/1.png\tA "cat".\n2\tA dog.\n\ncats/1.png\tOn a mat.\n')
    expected = [('A "cat".', "On a mat."), (), ("A dog.",)]
    assert [record.captions for record in iterate(ImageFolder(photos, captions=table))] == expected
    document = tmp_path / "captions.json"
    document.write_text(json.dumps({"cats/1.png": ['A "cat".', "On a mat."], "2.png": "A dog."}))
    assert [record.captions for record in iterate(ImageFolder(photos, captions=str(document)))] == expected


def test_captions_that_belong_to_no_image_are_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "captions.tsv").write_text("elsewhere.png\tA cat.\n")
    with pytest.raises(DataError, match=r"not a line of .*captions\.tsv"):
        ImageFolder(photos, captions=tmp_path / "captions.tsv")
    with pytest.raises(DataError, match=r"not a \.txt file beside"):
        ImageFolder(photos, captions="sidecar")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.tsv", "one two\n", "line 1: has 1 columns"),
        ("c.json", "{", "not a json file"),
        ("c.json", "[]", "not a list"),
        ("c.json", '{"a": 5}', "'a' holds 5"),
        ("c.json", '{"images": [{"id": 1}], "annotations": [{"image_id": 1}]}', "has no 'caption'"),
        ("c.tsv", b"a\t\xff\n", "UTF-8"),
    ],
)
def test_wrong_caption_files_say_what_is_wrong(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        read_captions(tmp_path / name)


def test_captions_of_a_coco_file_are_by_the_names_of_its_images(tmp_path: Path) -> None:
    document = {
        "images": [{"id": 7, "file_name": "b.jpg"}, {"id": 9, "file_name": "a.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 9, "caption": "A cat. "},
            {"id": 2, "image_id": 9, "caption": "A grey cat."},
        ],
    }
    (tmp_path / "c.json").write_text(json.dumps(document))
    assert read_captions(tmp_path / "c.json") == {"b.jpg": (), "a.jpg": ("A cat.", "A grey cat.")}


def test_a_missing_caption_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such caption file"):
        read_captions(tmp_path / "c.tsv")


def test_captions_join_any_reader_by_id(photos: Path) -> None:
    reader = Captioned(ImageFolder(photos), {"dogs/2.png": ["A dog."]})
    assert [record.captions for record in iterate(reader)] == [(), (), ("A dog.",)]
    assert len(reader) == 3
