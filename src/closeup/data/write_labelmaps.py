"""Records out as pictures beside label maps: the inverse of the reader in labelmaps.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import PIL.Image

from closeup._types import IGNORE
from closeup.data.atomic import replacing
from closeup.data.labelmaps import unlabelled_id
from closeup.data.record import Record
from closeup.data.write_pictures import picture_name, write_picture
from closeup.errors import InputError


def write_labelmaps(
    records: Iterable[Record],
    names: Sequence[str],
    root: str | Path,
    *,
    offset: int = 0,
    ignore: int | None = None,
    labels: str = "labels",
) -> Path:
    """Write ``images/``, label maps as PNG and, last, ``names.txt`` below ``root``; return ``root``.

    A label ``k`` is stored as ``k + offset`` and IGNORE as ``ignore`` (None: as `unlabelled_id` says), in 8 bits
    where they suffice, else 16. ``offset=1, ignore=0, labels="annotations"`` is ADE20K's form.

    Raises:
        InputError: a record has no label map or one with a label that has no name, two records have the same
            id, or an id is both a class and ``ignore``.
    """
    base = Path(root).expanduser()
    void = unlabelled_id(len(names) + offset) if ignore is None else ignore
    if offset <= void < offset + len(names):
        raise InputError(f"ignore={void} is also a class, {names[void - offset]!r}; choose another id or offset.")
    largest = max(void, offset + len(names) - 1)
    if min(void, offset) < 0 or largest > 65535:
        raise InputError(f"Stored ids must fit in 0..65535, but would reach from {min(void, offset)} to {largest}.")
    seen: set[PurePosixPath] = set()
    for record in records:
        name = PurePosixPath(picture_name(record)).with_suffix(".png")
        if name in seen:
            raise InputError(f"Two records make the label map {str(name)!r}; make ids unique before writing.")
        seen.add(name)
        ids = _stored(record, len(names), offset, void).astype(np.uint8 if largest < 256 else np.uint16)
        write_picture(record, base / "images")
        with replacing(base / labels / name) as temporary:
            PIL.Image.fromarray(ids).save(temporary)
    with replacing(base / "names.txt") as temporary:
        temporary.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return base


def _stored(record: Record, count: int, offset: int, void: int) -> np.ndarray:
    if record.label_map is None:
        raise InputError(f"Record {record.id!r} has no label map.")
    labels = record.label_map.numpy(force=True)
    low, high = int(labels.min()), int(labels.max())
    if low < IGNORE or high >= count:
        raise InputError(f"Record {record.id!r} has labels from {low} to {high}, but there are {count} names.")
    return np.where(labels == IGNORE, void, labels + offset)
