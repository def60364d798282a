"""PASCAL VOC 2012: 20 classes, and a background that takes part or not."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from closeup._types import IGNORE
from closeup.data.class_lists import class_names
from closeup.data.label_table import LabelTable
from closeup.data.labelmaps import LabelMaps, Pair, existing_pairs
from closeup.data.split_lists import inside, read_split

Background: TypeAlias = Literal["ignore", "class"]
"""Whether the pixels of none of the 20 classes take no part (PAS-20) or are a class of their own (PAS-21, PAS-20b)."""

VOID = 255
"""What is stored for the outlines of objects, and for difficult ones."""

LAYOUT = (
    "ImageSets/Segmentation/val.txt, JPEGImages/*.jpg and SegmentationClass/*.png, as the development kit unpacks into"
    " VOCdevkit/VOC2012"
)


def open_voc(root: str | Path, split: str = "val", background: Background = "ignore") -> LabelMaps:
    """Read VOC 2012's segmentation; ``root`` is its folder or one that holds it, `LAYOUT` says what is looked for.

    ``background="class"`` puts a class "background" before the 20, with label 0.

    Raises:
        DataError: files are missing; when its record is read, a label map holds an unknown id.
    """
    base = inside(root, "VOC2012", "VOCdevkit/VOC2012")
    pairs = [
        Pair(name, base / "JPEGImages" / f"{name}.jpg", base / "SegmentationClass" / f"{name}.png")
        for name in read_split([base / "ImageSets" / "Segmentation" / f"{split}.txt"], LAYOUT)
    ]
    names, other = class_names("voc-20"), IGNORE
    if background == "class":
        names, other = ("background", *names), 0
    # The background is stored as 0 and the classes from 1 on, so all of them move by what the background becomes.
    table = LabelTable({stored: stored + other for stored in range(21)} | {VOID: IGNORE})
    things = [name != "background" for name in names]
    return LabelMaps(existing_pairs(pairs, LAYOUT), names, table, things=things)
