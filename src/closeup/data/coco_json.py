"""What all COCO files have in common: tables of images, categories and annotations joined by ids."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from closeup.errors import DataError

Entry: TypeAlias = Mapping[str, Any]
"""One row of a table: a json object."""

RECORD_ID = "record_id"
"""The key by which a written image keeps a record's id where that is not the whole number COCO wants."""

_OLD_PREFIX = re.compile(r"^COCO_[a-z]+[0-9]{4}_")


@dataclass(frozen=True)
class CocoJson:
    """A parsed COCO file; every message about it names ``path``."""

    path: Path
    document: Entry

    @classmethod
    def read(cls, path: str | Path) -> CocoJson:
        """Parse a file.

        Raises:
            DataError: it is missing, is not json, or does not hold a json object.
        """
        path = Path(path).expanduser()
        return cls(path, read_object(path))

    def table(self, name: str, fields: Mapping[str, type | tuple[type, ...]]) -> list[Entry]:
        """Return a list of objects whose ``fields`` are all there and of their type.

        Raises:
            DataError: naming the file, the row and the field.
        """
        rows = self.document.get(name)
        if not isinstance(rows, list):
            found = ", ".join(map(repr, self.document)) or "nothing"
            raise DataError(f"{self.path}: no list {name!r}; the file holds {found}. Is it the right kind of file?")
        for index, row in enumerate(rows):
            self.check(row, fields, f"{name}[{index}]")
        return rows

    def check(self, row: object, fields: Mapping[str, type | tuple[type, ...]], where: str) -> None:
        """Hold that a row is an object whose ``fields`` are there and of their type, else raise DataError."""
        if not isinstance(row, dict):
            raise DataError(f"{self.path}: {where} is {row!r:.60}, not an object.")
        for field, kind in fields.items():
            if field not in row:
                raise DataError(f"{self.path}: {where} has no {field!r}; its keys are {', '.join(map(repr, row))}.")
            if not isinstance(row[field], kind):
                raise DataError(f"{self.path}: {where} has {field!r} = {row[field]!r:.60}, which is not {_name(kind)}.")

    def check_box(self, row: Entry, where: str) -> None:
        """Hold that a row's ``bbox``, where there is one, is four finite numbers, else raise DataError."""
        box = row.get("bbox")
        if box is None:
            return
        numbers = isinstance(box, list) and all(isinstance(side, int | float) and math.isfinite(side) for side in box)
        if not numbers or len(box) != 4:
            raise DataError(f"{self.path}: {where} has 'bbox' = {box!r:.60}, not x, y, width, height.")

    @cached_property
    def images(self) -> list[Entry]:
        """The images in the order of the file; ids are unique."""
        rows = self.table("images", {"id": (int, str)})
        self._unique(rows, "images")
        return rows

    @cached_property
    def categories(self) -> list[Entry]:
        """The categories sorted by id, the order in which the official evaluation counts them."""
        rows = self.table("categories", {"id": int, "name": str})
        self._unique(rows, "categories")
        return sorted(rows, key=lambda row: row["id"])

    @cached_property
    def label_of(self) -> dict[int, int]:
        """The label, an index into the sorted categories, of every category id."""
        return {row["id"]: label for label, row in enumerate(self.categories)}

    def by_image(self, rows: Iterable[Entry], table: str = "annotations") -> dict[Any, list[Entry]]:
        """Gather rows by their ``image_id``; every image has an entry, if an empty one.

        Raises:
            DataError: a row speaks of an image that the file does not list.
        """
        gathered: dict[Any, list[Entry]] = {image["id"]: [] for image in self.images}
        for index, row in enumerate(rows):
            if row["image_id"] not in gathered:
                raise DataError(
                    f"{self.path}: {table}[{index}] has image_id {row['image_id']!r}, which is not among the"
                    f" {len(gathered)} images of the file."
                )
            gathered[row["image_id"]].append(row)
        return gathered

    def label(self, category: int, where: str) -> int:
        """Return the label of a category id.

        Raises:
            DataError: no category has this id.
        """
        if category not in self.label_of:
            raise DataError(
                f"{self.path}: {where} has category_id {category}, which is not among the"
                f" {len(self.label_of)} categories of the file."
            )
        return self.label_of[category]

    def _unique(self, rows: Sequence[Entry], table: str) -> None:
        seen: set[Any] = set()
        for row in rows:
            if row["id"] in seen:
                raise DataError(f"{self.path}: {table} holds the id {row['id']!r} twice.")
            seen.add(row["id"])


def read_object(path: Path) -> dict[str, Any]:
    """Return the json object that a file holds.

    Raises:
        DataError: the file is missing, is not json, or holds something else.
    """
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DataError(f"{path}: no such annotation file.") from error
    except ValueError as error:
        raise DataError(f"{path}: not a json file ({error}). Is it cut short, or still packed?") from error
    if not isinstance(document, dict):
        raise DataError(f"{path}: holds a json {type(document).__name__}, not an object with tables.")
    return document


def record_id(image: Entry) -> str:
    """Return the id that the record of an image carries: the COCO id as text unless another was kept."""
    return str(image.get(RECORD_ID, image["id"]))


def image_size(image: Entry) -> tuple[int, int] | None:
    """Return ``(height, width)`` of an image entry, None where it does not say."""
    height, width = image.get("height"), image.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def image_path(image: Entry, folder: Path | None) -> Path:
    """Return where the file of an image entry lies.

    Tried in order below ``folder``: ``file_name``; the last two parts of ``coco_url`` (LVIS: val2017/0...1.jpg);
    the last part of either; and that without the prefix ``COCO_val2014_`` of old releases. Without a folder
    the name alone is returned.

    Raises:
        DataError: the entry has no name, or no such file exists.
    """
    name = str(image.get("file_name") or "/".join(str(image.get("coco_url", "")).split("/")[-2:]))
    if not name:
        raise DataError(f"Image {image['id']!r} has neither 'file_name' nor 'coco_url'.")
    if folder is None:
        return Path(name)
    url = str(image.get("coco_url", "")).split("/")
    candidates = [name, "/".join(url[-2:]), Path(name).name, url[-1], _OLD_PREFIX.sub("", Path(name).name)]
    names = list(dict.fromkeys(filter(None, candidates)))
    for candidate in names:
        if (folder / candidate).is_file():
            return folder / candidate
    raise DataError(f"{folder}: holds no {' or '.join(names)}, the file of image {image['id']!r}.")


def check_folder(folder: str | Path, what: str, layout: str = "") -> Path:
    """Return an existing folder as a path.

    Raises:
        DataError: there is no such folder; ``layout`` says in the message what was expected.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise DataError(f"{path}: no such folder of {what}." + (f" Expected: {layout}." if layout else ""))
    return path


def _name(kind: type | tuple[type, ...]) -> str:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return " or ".join(each.__name__ for each in kinds)
