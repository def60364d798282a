"""PASCAL Context: VOC 2010's photographs, every pixel labelled, in 59 frequent classes or all 459."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Int
from scipy.io import loadmat

from closeup._types import IGNORE
from closeup.data.class_lists import class_names
from closeup.data.label_table import LabelTable
from closeup.data.labelmaps import LabelMaps, Pair, existing_pairs
from closeup.data.split_lists import inside, read_split
from closeup.errors import DataError

Classes: TypeAlias = Literal["59", "60", "459"]
"""The 59 most frequent classes, those and everything else as a class "background", or all."""

LAYOUT = (
    "ImageSets/Main/val.txt and JPEGImages/*.jpg of VOC2010 with the annotations' trainval/*.mat beside; or, for 59 and"
    " 60 classes, ImageSets/SegmentationContext/val.txt and SegmentationClassContext/*.png as mmsegmentation prepares"
    " them"
)


def open_pascal_context(root: str | Path, split: str = "val", classes: Classes = "59") -> LabelMaps:
    """Read PASCAL Context; ``root`` is VOC2010 or a folder that holds it, `LAYOUT` says which files are looked for.

    The annotations' own files are read where they are. They store 1 to 459, and 0 for what nobody labelled, which takes
    no part among the 459 (of which one is called "unknown"); the 59 are chosen from them by name. Pixels of no class of
    the 59 take no part, or are the class "background" of 60, with label 0.

    Raises:
        DataError: files are missing; when its record is read, a label map cannot be read or holds an unknown id.
    """
    base = inside(root, "VOC2010", "VOCdevkit/VOC2010")
    lists = [base / "ImageSets" / folder / f"{split}.txt" for folder in ("SegmentationContext", "Main")]
    official = (base / "trainval").is_dir()
    if classes == "459" and not official:
        raise DataError(f"{base / 'trainval'}: no such folder, and only it has all 459 classes. Expected: {LAYOUT}.")
    folder, suffix = ("trainval", ".mat") if official else ("SegmentationClassContext", ".png")
    pairs = [
        Pair(name, base / "JPEGImages" / f"{name}.jpg", base / folder / f"{name}{suffix}")
        for name in read_split(lists, LAYOUT)
    ]
    names = class_names("pascal-context-459" if classes == "459" else "pascal-context-59")
    other = IGNORE
    if classes == "60":
        names, other = ("background", *names), 0
    pairs = existing_pairs(pairs, LAYOUT)
    if official:
        return LabelMaps(pairs, names, _official_table(names, other), read=read_matlab)
    # The background is stored as 0 and the classes from 1 on, so all of them move by what the background becomes.
    return LabelMaps(pairs, names, LabelTable({stored: stored + other for stored in range(60)} | {255: IGNORE}))


def read_matlab(path: Path) -> Int[np.ndarray, "height width"]:
    """Return the stored id of every pixel of an annotation's ``.mat``, which calls them ``LabelMap``.

    Raises:
        DataError: the file cannot be read or holds no such map.
    """
    try:
        content = loadmat(path)
    except Exception as error:  # the reader raises nearly anything on broken data
        raise DataError(f"{path}: not a MATLAB file that can be read ({error}).") from error
    ids = content.get("LabelMap")
    if not isinstance(ids, np.ndarray) or ids.ndim != 2 or ids.dtype.kind not in "ui":
        held = ", ".join(name for name in content if not name.startswith("_")) or "nothing"
        raise DataError(f"{path}: no map of whole numbers 'LabelMap'; the file holds {held}.")
    return ids.astype(np.int64)


def _official_table(names: tuple[str, ...], other: int) -> LabelTable:
    label_of = {name: label for label, name in enumerate(names)}
    everything = enumerate(class_names("pascal-context-459"), start=1)
    return LabelTable({0: other} | {stored: label_of.get(name, other) for stored, name in everything})
