"""ADE20K scene parsing: 150 classes, label maps that count from 1, and 0 for everything else."""

from __future__ import annotations

from pathlib import Path

from closeup.data.coco_json import check_folder
from closeup.data.labelmaps import LabelMapFolder

# The first synonym of every class, in the order of the benchmark's objectInfo150 table (CSAILVision/sceneparsing);
# its csv form breaks names of several words at every space, so the list is kept here and tested against it.
NAMES = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass",
    "cabinet", "sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair",
    "car", "water", "painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field",
    "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp", "bathtub", "railing", "cushion",
    "base", "box", "column", "signboard", "chest of drawers", "counter", "sand", "sink", "skyscraper", "fireplace",
    "refrigerator", "grandstand", "path", "stairs", "runway", "case", "pool table", "pillow", "screen door", "stairway",
    "river", "bridge", "bookcase", "blind", "coffee table", "toilet", "flower", "book", "hill", "bench",
    "countertop", "stove", "palm", "kitchen island", "computer", "swivel chair", "boat", "bar", "arcade machine",
    "hovel", "bus", "towel", "light", "truck", "tower", "chandelier", "awning", "streetlight", "booth",
    "television receiver",
    "airplane", "dirt track", "apparel", "pole", "land", "bannister", "escalator", "ottoman", "bottle", "buffet",
    "poster", "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer", "plaything", "swimming pool",
    "stool", "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball",
    "food", "step", "tank", "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher",
    "screen", "blanket", "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan",
    "pier", "crt screen", "plate", "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag",
)  # fmt: skip
"""The 150 names."""

_STUFF_IDS = {
    1, 2, 3, 4, 6, 7, 10, 12, 14, 17, 22, 26, 27, 29, 30, 47, 49, 52, 53, 55, 60, 61, 62, 69, 80, 85, 92, 95, 97, 102,
    106, 110, 114, 129, 141,
}  # fmt: skip

THINGS = tuple(stored not in _STUFF_IDS for stored in range(1, 151))
"""Which of the names are things, after the column ``Stuff`` of the same table."""

_SPLITS = {"train": "training", "val": "validation"}

LAYOUT = (
    "images/validation/*.jpg, annotations/validation/*.png (train: training), or images/ and annotations/"
    " without splits"
)


def open_ade20k(root: str | Path, split: str = "val") -> LabelMapFolder:
    """Read ADE20K as the scene-parsing benchmark ships it; `LAYOUT` says which folders are looked for.

    Raises:
        DataError: a folder is missing, or as `LabelMapFolder` says.
    """
    base = Path(root).expanduser()
    name = _SPLITS.get(split, split)
    below = Path(name) if (base / "images" / name).is_dir() else Path()
    images = check_folder(base / "images" / below, "ADE20K images", LAYOUT)
    labels = check_folder(base / "annotations" / below, "ADE20K label maps", LAYOUT)
    return LabelMapFolder(images, labels, NAMES, ignore={0}, offset=1, things=THINGS)
