"""Pictures beside label maps: one picture, one single-channel image of class ids (ADE20K, CamVid and their like)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from jaxtyping import Int

from closeup._types import IGNORE, LabelMap
from closeup.data.coco_json import check_folder
from closeup.data.images import list_images
from closeup.data.record import Record
from closeup.errors import DataError

_STRANGE = -2


class LabelMapFolder:
    """Records with a label map, paired by their path below the two folders, whatever the suffix.

    A stored id ``v`` means ``names[v - offset]``; ids in ``ignore`` become IGNORE. ``things`` says which names
    have instances, all False unless given. The id of a record is that path without its suffix.

    Raises:
        DataError: a folder is missing, an image has no label map, an id is below 0, or (when its record is read) a
            label map is coloured or holds an id that is neither a class nor ignored.
    """

    names: tuple[str, ...]
    things: tuple[bool, ...]

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
        self.names = tuple(names)
        self.things = tuple(things) if things is not None else (False,) * len(self.names)
        if len(self.things) != len(self.names):
            raise DataError(f"things says {len(self.things)} kinds for {len(self.names)} names; give one for each.")
        if not self.names:
            raise DataError("A label map needs the names of its classes; the list is empty.")
        if min(offset, *ignore, 0) < 0:
            raise DataError(f"Stored ids count from 0, but offset={offset} and ignore={sorted(ignore)}.")
        self._table = _lookup(len(self.names), ignore, offset)
        self._offset = offset
        self._ignore = sorted(ignore)
        pictures = _by_stem(check_folder(images, "images"))
        maps = _by_stem(check_folder(labels, "label maps"))
        lonely = [stem for stem in pictures if stem not in maps]
        if lonely:
            raise DataError(
                f"{labels}: {len(lonely)} of {len(pictures)} images in {images} have no label map of the same name,"
                f" the first is {lonely[0]!r}."
            )
        self._items = [(stem, path, maps[stem]) for stem, path in pictures.items()]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int, /) -> Record:
        stem, image, labels = self._items[index]
        label_map = self._translate(read_ids(labels), labels)
        return Record(id=stem, image=image, size=(label_map.shape[0], label_map.shape[1]), label_map=label_map)

    def _translate(self, ids: Int[np.ndarray, "height width"], path: Path) -> LabelMap:
        # As unsigned numbers negative ids are huge, and all beyond the table share its last entry.
        labels = self._table[np.minimum(ids.astype(np.uint64), len(self._table) - 1)]
        strange = np.unique(ids[labels == _STRANGE])
        if len(strange):
            first, last = self._offset, self._offset + len(self.names) - 1
            raise DataError(
                f"{path}: holds the ids {strange[:5].tolist()}, which are neither classes ({first} to {last}) nor"
                f" ignored ({self._ignore})."
            )
        return torch.from_numpy(labels)


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


def unlabelled_id(count: int) -> int:
    """Return the id that stands for IGNORE in a stored label map of ``count`` classes unless told otherwise.

    255 where the ids fit in a byte, as most data sets have it, else 65535.
    """
    return 255 if count <= 255 else 65535


def _lookup(count: int, ignore: Collection[int], offset: int) -> Int[np.ndarray, " ids"]:
    """Return the label of every id from 0 on; the last entry stands for all ids beyond."""
    table = np.full(max(offset + count - 1, *ignore, 0) + 2, _STRANGE, dtype=np.int64)
    table[offset : offset + count] = np.arange(count)
    table[list(ignore)] = IGNORE
    return table


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in list_images(folder):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise DataError(f"{path} and {found[stem]} have the same name; keep one.")
        found[stem] = path
    return found
