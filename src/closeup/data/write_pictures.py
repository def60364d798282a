"""Pictures out: the image files of written data sets, and file names made from record ids."""

from __future__ import annotations

import re
import shutil
from pathlib import Path, PurePosixPath

import numpy as np
import PIL.Image

from closeup._types import ImageLike
from closeup.data.atomic import replacing
from closeup.data.images import open_image
from closeup.data.record import Record
from closeup.errors import ImageError, InputError


def write_picture(record: Record, folder: Path) -> str:
    """Write a record's image below ``folder`` and return its name there.

    A file is copied as it is; a PIL picture or an array is written as PNG.

    Raises:
        ImageError: the image is not a file or cannot be read.
    """
    name = picture_name(record)
    if isinstance(record.image, str | Path) and not Path(record.image).expanduser().is_file():
        raise ImageError(f"{record.image}: no such image file.")
    with replacing(folder / name) as temporary:
        if isinstance(record.image, str | Path):
            shutil.copyfile(Path(record.image).expanduser(), temporary)
        else:
            open_image(record.image).save(temporary)
    return name


def picture_name(record: Record) -> str:
    """Return the relative file name of a record's image: its id, safe for every file system, and a suffix."""
    suffix = _suffix(record.image)
    stem = safe_name(record.id)
    return stem if stem.lower().endswith(suffix.lower()) else stem + suffix


def safe_name(identity: str) -> str:
    """Return a record's id as a relative path that stays below its folder, odd characters replaced.

    Raises:
        InputError: nothing is left.
    """
    parts = [re.sub(r"[^\w.\-]", "_", part) for part in PurePosixPath(identity).parts]
    kept = [part for part in parts if part.strip("._")]
    if not kept:
        raise InputError(f"The record id {identity!r} makes no file name; use letters or digits.")
    return "/".join(kept)


def original_size(record: Record) -> tuple[int, int]:
    """Return ``(height, width)`` of a record's image, opening it only where the record does not know."""
    for part in (record.masks, record.label_map):
        if part is not None:
            return part.shape[-2], part.shape[-1]
    if record.size is not None:
        return record.size
    picture = record.load()
    return picture.height, picture.width


def _suffix(image: ImageLike) -> str:
    if isinstance(image, np.ndarray | PIL.Image.Image):
        return ".png"
    return Path(image).suffix or ".png"
