"""Cityscapes: street photographs of 50 cities in the 19 classes that its benchmark evaluates."""

from __future__ import annotations

from pathlib import Path

from closeup._types import IGNORE
from closeup.data.class_lists import class_names
from closeup.data.coco_json import check_folder
from closeup.data.images import natural_key
from closeup.data.label_table import LabelTable
from closeup.data.labelmaps import LabelMaps, Pair, existing_pairs
from closeup.errors import DataError

LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""What the data set's own label maps store for each of the 19 classes; of 34 ids the others are not evaluated."""

FIRST_THING = 11
"""The classes from this label on, people and vehicles, have instances."""

_PICTURE = "_leftImg8bit"
_IDS, _TRAIN_IDS = "_gtFine_labelIds", "_gtFine_labelTrainIds"

LAYOUT = (
    f"leftImg8bit/val/CITY/*{_PICTURE}.png and gtFine/val/CITY/*{_IDS}.png, as the archives unpack, or there"
    f" *{_TRAIN_IDS}.png"
)


def open_cityscapes(root: str | Path, split: str = "val") -> LabelMaps:
    """Read the fine annotations of Cityscapes; `LAYOUT` says which files are looked for.

    The id of a record is its city and name. The labels of the test split are not public.

    Raises:
        DataError: files are missing; when its record is read, a label map holds an unknown id.
    """
    base = Path(root).expanduser()
    images = check_folder(base / "leftImg8bit" / split, "Cityscapes images", LAYOUT)
    labels = check_folder(base / "gtFine" / split, "Cityscapes label maps", LAYOUT)
    pictures = sorted(images.glob(f"*/*{_PICTURE}.png"), key=natural_key)
    if not pictures:
        raise DataError(f"{images}: no photographs of any city. Expected: {LAYOUT}.")
    stems = [path.relative_to(images).as_posix().removesuffix(f"{_PICTURE}.png") for path in pictures]
    own = (labels / f"{stems[0]}{_IDS}.png").is_file() or not (labels / f"{stems[0]}{_TRAIN_IDS}.png").is_file()
    suffix = _IDS if own else _TRAIN_IDS
    pairs = [Pair(stem, path, labels / f"{stem}{suffix}.png") for stem, path in zip(stems, pictures, strict=True)]
    names = class_names("cityscapes-19")
    stored = LABEL_IDS if own else range(len(names))
    expected = dict.fromkeys((*range(34 if own else 0), 255), IGNORE)
    table = LabelTable(expected | {value: label for label, value in enumerate(stored)})
    things = [label >= FIRST_THING for label in range(len(names))]
    return LabelMaps(existing_pairs(pairs, LAYOUT), names, table, things=things)
