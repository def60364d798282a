"""Pictures beside label maps: one picture, one single-channel image of class ids (ADE20K, CamVid and their like)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import PIL.Image
from jaxtyping import Int

from closeup._types import IGNORE
from closeup.data.coco_json import check_folder
from closeup.data.images import list_images
from closeup.data.label_table import LabelTable
from closeup.data.record import Record
from closeup.errors import DataError

ReadIds: TypeAlias = Callable[[Path], Int[np.ndarray, "height width"]]
"""Returns the stored id of every pixel of a label map's file."""


class Pair(NamedTuple):
    """A picture's record id, its file, and the file of its label map."""

    id: str
    image: Path
    labels: Path


def read_ids(path: Path) -> Int[np.ndarray, "height width"]:
    """Return the stored id of every pixel of a single-channel image; of a palette image, the palette index.

    Raises:
        DataError: the file cannot be read or has colours instead of ids.
    """
    try:
        with PIL.Image.open(path) as picture:
            if picture.mode not in ("L", "P", "1", "I", "I;16", "I;16B"):
                raise DataError(
                    f"{path}: a label map has one channel of class ids, not PIL mode {picture.mode}; turn colours"
                    " into ids first."
                )
            return np.asarray(picture).astype(np.int64)
    except (OSError, SyntaxError) as error:
        raise DataError(f"{path}: the label map cannot be read ({error}).") from error


class LabelMaps:
    """Records with a label map each, from pictures and label maps that are already paired.

    ``table`` turns what ``read`` returns into indices into ``names``. ``things`` says which names have instances, all
    False unless given.

    Raises:
        DataError: names and things do not fit, or (when its record is read) a label map cannot be read or holds an id
            that the table does not know.
    """

    names: tuple[str, ...]
    things: tuple[bool, ...]

    def __init__(
        self,
        pairs: Sequence[Pair],
        names: Sequence[str],
        table: LabelTable,
        *,
        things: Sequence[bool] | None = None,
        read: ReadIds = read_ids,
    ) -> None:
        self.names = tuple(names)
        self.things = tuple(things) if things is not None else (False,) * len(self.names)
        if len(self.things) != len(self.names):
            raise DataError(f"things says {len(self.things)} kinds for {len(self.names)} names; give one for each.")
        if not self.names:
            raise DataError("A label map needs the names of its classes; the list is empty.")
        self._pairs = tuple(pairs)
        self._table = table
        self._read = read

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int, /) -> Record:
        pair = self._pairs[index]
        label_map = self._table.translate(self._read(pair.labels), pair.labels)
        return Record(id=pair.id, image=pair.image, size=(label_map.shape[0], label_map.shape[1]), label_map=label_map)


class LabelMapFolder(LabelMaps):
    """Records with a label map, paired by their path below the two folders, whatever the suffix.

    A stored id ``v`` means ``names[v - offset]``; ids in ``ignore`` become IGNORE. ``things`` says which names
    have instances, all False unless given. The id of a record is that path without its suffix.

    Raises:
        DataError: a folder is missing, an image has no label map, an id is below 0, or (when its record is read) a
            label map is coloured or holds an id that is neither a class nor ignored.
    """

    def __init__(
        self,
        images: str | Path,
        labels: str | Path,
        names: Sequence[str],
        *,
        ignore: Collection[int] = (),
        offset: int = 0,
        things: Sequence[bool] | None = None,
    ) -> None:
        if min(offset, *ignore, 0) < 0:
            raise DataError(f"Stored ids count from 0, but offset={offset} and ignore={sorted(ignore)}.")
        classes = {offset + label: label for label in range(len(names))}
        table = LabelTable(classes | dict.fromkeys(ignore, IGNORE))
        super().__init__(paired_folders(images, labels), names, table, things=things)


def paired_folders(images: str | Path, labels: str | Path) -> list[Pair]:
    """Pair every image below a folder with the label map of the same path below another, whatever the suffix.

    Raises:
        DataError: a folder is missing, an image has no label map, or two files differ in their suffix alone.
    """
    pictures = _by_stem(check_folder(images, "images"))
    maps = _by_stem(check_folder(labels, "label maps"))
    lonely = [stem for stem in pictures if stem not in maps]
    if lonely:
        raise DataError(
            f"{labels}: {len(lonely)} of {len(pictures)} images in {images} have no label map of the same name,"
            f" the first is {lonely[0]!r}."
        )
    return [Pair(stem, path, maps[stem]) for stem, path in pictures.items()]


def existing_pairs(pairs: Sequence[Pair], layout: str) -> list[Pair]:
    """Return pairs whose files are all there.

    Raises:
        DataError: files are missing; the message counts them and shows the expected layout.
    """
    files = [path for pair in pairs for path in (pair.image, pair.labels)]
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise DataError(f"{missing[0]}: no such file; {len(missing)} of {len(files)} are missing. Expected: {layout}.")
    return list(pairs)


def unlabelled_id(count: int) -> int:
    """Return the id that stands for IGNORE in a stored label map of ``count`` classes unless told otherwise.

    255 where the ids fit in a byte, as most data sets have it, else 65535.
    """
    return 255 if count <= 255 else 65535


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in list_images(folder):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise DataError(f"{path} and {found[stem]} have the same name; keep one.")
        found[stem] = path
    return found
