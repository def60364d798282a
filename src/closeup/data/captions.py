"""Captions from beside the pictures: a reader whose records gain sentences from another source."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from closeup.data.coco_json import CocoJson, record_id
from closeup.data.record import Reader, Record
from closeup.errors import DataError


class Captioned:
    """Another reader's records with captions looked up by their id; a record not named keeps its own.

    Raises:
        DataError: no record of the reader is named, so the two do not belong together.
    """

    names: tuple[str, ...]
    things: tuple[bool, ...]
    novel: tuple[str, ...]

    def __init__(self, reader: Reader, captions: Mapping[str, Sequence[str]]) -> None:
        self.names = reader.names
        self.things = reader.things
        self.novel = tuple(getattr(reader, "novel", ()))
        self._reader = reader
        self._captions = captions

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int, /) -> Record:
        record = self._reader[index]
        found = self._captions.get(record.id)
        return record if found is None else replace(record, captions=tuple(found))


def read_captions(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Return the captions of images by name, from a json or a table file.

    A ``.json`` file holds one object: image name to a sentence or a list of them, or COCO's captions, whose names are
    those of the image files. Any other file is read as rows of name, tab, sentence, without a header; a name may come
    again with another sentence.

    Raises:
        DataError: the file is missing or of another form.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise DataError(f"{path}: no such caption file.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: captions are UTF-8 text ({error}).") from error
    return _from_json(text, path) if path.suffix.lower() == ".json" else _from_rows(text, path)


def _from_json(text: str, path: Path) -> dict[str, tuple[str, ...]]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}: not a json file ({error}).") from error
    if not isinstance(document, dict):
        raise DataError(f"{path}: captions are one object, image name to sentence, not a {type(document).__name__}.")
    if {"images", "annotations"} <= document.keys():
        return _from_coco(CocoJson(path, document))
    return {name: _sentences(value, f"{path}: {name!r}") for name, value in document.items()}


def _from_coco(coco: CocoJson) -> dict[str, tuple[str, ...]]:
    rows = coco.by_image(coco.table("annotations", {"image_id": (int, str), "caption": str}))
    return {
        str(image.get("file_name", record_id(image))): tuple(row["caption"].strip() for row in rows[image["id"]])
        for image in coco.images
    }


def _sentences(value: object, where: str) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(sentence, str) for sentence in listed):
        raise DataError(f"{where} holds {value!r:.60}, not a sentence or a list of sentences.")
    return tuple(sentence.strip() for sentence in listed)


def _from_rows(text: str, path: Path) -> dict[str, tuple[str, ...]]:
    gathered: dict[str, tuple[str, ...]] = {}
    for number, row in enumerate(csv.reader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE), start=1):
        if not row:
            continue
        if len(row) != 2:
            raise DataError(f"{path}, line {number}: has {len(row)} columns, not image name, tab, sentence.")
        gathered[row[0]] = (*gathered.get(row[0], ()), row[1].strip())
    return gathered
