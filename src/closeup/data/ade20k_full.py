"""ADE20K's full release in the 847 classes that open-vocabulary papers count (A-847)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
from jaxtyping import Int

from closeup._types import IGNORE
from closeup.data.ade20k import SPLITS
from closeup.data.class_lists import class_names, read_list
from closeup.data.coco_json import check_folder
from closeup.data.images import natural_key
from closeup.data.label_table import LabelTable
from closeup.data.labelmaps import LabelMaps, Pair, existing_pairs, paired_folders
from closeup.errors import DataError

UNLABELLED = 65535
"""What the prepared label maps store for pixels of no class."""

LAYOUT = (
    "images_detectron2/validation/*.jpg and annotations_detectron2/validation/*.tif (train: training), the widely used"
    " preparation; or the release's own images/ADE/validation/*/*/ADE_val_*.jpg with *_seg.png beside"
)


def open_ade20k_full(root: str | Path, split: str = "val") -> LabelMaps:
    """Read ADE20K_2021_17_01, prepared where it is, else as it is released; `LAYOUT` says which files are looked for.

    The prepared label maps are 16-bit images of labels from 0, `UNLABELLED` elsewhere, with pictures shrunk to a
    shorter side of 512 pixels. The release's own are at full size, their objects told by colour: see
    `read_object_ids`. Names are one word a class; all words are in the list "ade20k-847".

    Raises:
        DataError: files are missing; when its record is read, a label map cannot be read.
    """
    base = Path(root).expanduser()
    name = SPLITS.get(split, split)
    names = class_names("ade20k-847")
    images = base / "images_detectron2" / name
    if images.is_dir():
        table = LabelTable({label: label for label in range(len(names))} | {UNLABELLED: IGNORE})
        labels = check_folder(base / "annotations_detectron2" / name, "ADE20K label maps", LAYOUT)
        return LabelMaps(paired_folders(images, labels), names, table)
    released = LabelTable({stored: label for label, stored in enumerate(stored_ids())}, rest=IGNORE)
    return LabelMaps(_released(base / "images" / "ADE" / name), names, released, read=read_object_ids)


def stored_ids() -> tuple[int, ...]:
    """Return what the release stores for each of the 847 classes, in their order."""
    lines = read_list("ade20k-847-ids").split("\n")
    return tuple(int(word) for line in lines if not line.startswith("#") for word in line.split())


def read_object_ids(path: Path) -> Int[np.ndarray, "height width"]:
    """Return the object of every pixel of a ``*_seg.png``: red // 10 * 256 + green; 0 is none. Blue tells instances.

    Raises:
        DataError: the file cannot be read or is not an RGB picture.

    Source: how the release stores objects (Zhou et al., IJCV 2019; ``CSAILVision/ADE20K``).
    """
    try:
        with PIL.Image.open(path) as picture:
            if picture.mode != "RGB":
                raise DataError(f"{path}: ADE20K's *_seg.png is RGB, not of PIL mode {picture.mode}.")
            colours = np.asarray(picture, dtype=np.int64)
    except (OSError, SyntaxError) as error:
        raise DataError(f"{path}: the label map cannot be read ({error}).") from error
    return colours[..., 0] // 10 * 256 + colours[..., 1]


def _released(folder: Path) -> list[Pair]:
    # The folders also hold a picture for each instance and part, so only what is called like a photograph is listed.
    images = sorted(folder.rglob("ADE_*.jpg"), key=natural_key)
    if not images:
        raise DataError(f"{folder}: no photographs of ADE20K's full release. Expected: {LAYOUT}.")
    pairs = [
        Pair(path.relative_to(folder).with_suffix("").as_posix(), path, path.with_name(f"{path.stem}_seg.png"))
        for path in images
    ]
    return existing_pairs(pairs, LAYOUT)
