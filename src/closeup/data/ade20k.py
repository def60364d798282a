"""ADE20K scene parsing: 150 classes, label maps that count from 1, and 0 for everything else."""

from __future__ import annotations

from pathlib import Path

from closeup.data.class_lists import class_names
from closeup.data.coco_json import check_folder
from closeup.data.labelmaps import LabelMapFolder

_STUFF_IDS = {
    1, 2, 3, 4, 6, 7, 10, 12, 14, 17, 22, 26, 27, 29, 30, 47, 49, 52, 53, 55, 60, 61, 62, 69, 80, 85, 92, 95, 97, 102,
    106, 110, 114, 129, 141,
}  # fmt: skip

THINGS = tuple(stored not in _STUFF_IDS for stored in range(1, 151))
"""Which of the classes are things, after the column ``Stuff`` of the benchmark's objectInfo150 table."""

SPLITS = {"train": "training", "val": "validation"}
"""What ADE20K calls its splits."""

LAYOUT = (
    "images/validation/*.jpg, annotations/validation/*.png (train: training), or images/ and annotations/"
    " without splits"
)


def open_ade20k(root: str | Path, split: str = "val") -> LabelMapFolder:
    """Read ADE20K as the scene-parsing benchmark ships it; `LAYOUT` says which folders are looked for.

    Names are the first word of each class; all words are in the list "ade20k-150".

    Raises:
        DataError: a folder is missing, or as `LabelMapFolder` says.
    """
    base = Path(root).expanduser()
    name = SPLITS.get(split, split)
    below = Path(name) if (base / "images" / name).is_dir() else Path()
    images = check_folder(base / "images" / below, "ADE20K images", LAYOUT)
    labels = check_folder(base / "annotations" / below, "ADE20K label maps", LAYOUT)
    return LabelMapFolder(images, labels, class_names("ade20k-150"), ignore={0}, offset=1, things=THINGS)
