"""COCO-Stuff: COCO's photographs, every pixel one of 80 things or 91 grounds."""

from __future__ import annotations

from pathlib import Path

from closeup._types import IGNORE
from closeup.data.class_lists import class_names
from closeup.data.label_table import LabelTable
from closeup.data.labelmaps import LabelMaps, paired_folders
from closeup.errors import DataError

THINGS = 80
"""So many of the 171 classes, the first ones, are things."""

UNLABELLED = 255

# COCO numbered 182 categories and gave 11 of the things up; label maps store the category id minus 1.
_GIVEN_UP = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91})
STORED = tuple(category - 1 for category in range(1, 183) if category not in _GIVEN_UP)
"""What is stored for each of the 171 classes."""

LAYOUT = (
    "val2017/*.jpg and stuffthingmaps/val2017/*.png, COCO's folder with the maps of stuffthingmaps_trainval2017.zip; or"
    " images/val2017 and annotations/val2017 as mmsegmentation has them (train: train2017)"
)


def open_coco_stuff(root: str | Path, split: str = "val") -> LabelMaps:
    """Read the 164k version of COCO-Stuff in its 171 classes; `LAYOUT` says which folders are looked for.

    Raises:
        DataError: a folder is missing, an image has no label map; when its record is read, a label map holds an
            unknown id.
    """
    base, year = Path(root).expanduser(), f"{split}2017"
    images = _first(base, year, "images", ("", "images"))
    labels = _first(base, year, "label maps", ("stuffthingmaps", "stuffthingmaps_trainval2017", "annotations"))
    names = class_names("coco-stuff-171")
    table = LabelTable({stored: label for label, stored in enumerate(STORED)} | {UNLABELLED: IGNORE})
    return LabelMaps(
        paired_folders(images, labels), names, table, things=[label < THINGS for label in range(len(names))]
    )


def _first(base: Path, year: str, what: str, below: tuple[str, ...]) -> Path:
    candidates = [base / name / year for name in below]
    found = next((path for path in candidates if path.is_dir()), None)
    if found is None:
        looked = " or ".join(map(str, candidates))
        raise DataError(f"No folder of COCO-Stuff {what}: looked for {looked}. Expected: {LAYOUT}.")
    return found
