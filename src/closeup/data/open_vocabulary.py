"""Open-vocabulary COCO and LVIS: which of their classes are novel, and their files without the boxes of those."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from closeup.data.coco_json import CocoJson, Entry
from closeup.errors import DataError

Document: TypeAlias = dict[str, Any]
"""A COCO file's json object: tables of images, categories and annotations, and whatever else it holds."""

COCO_BASE = (
    *("person", "bicycle", "car", "motorcycle", "train", "truck", "boat", "bench", "bird", "horse", "sheep", "bear"),
    *("zebra", "giraffe", "backpack", "handbag", "suitcase", "frisbee", "skis", "kite", "surfboard", "bottle", "fork"),
    *("spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "pizza", "donut", "chair", "bed"),
    *("toilet", "tv", "laptop", "mouse", "remote", "microwave", "oven", "toaster", "refrigerator", "book", "clock"),
    *("vase", "toothbrush"),
)
"""The 48 classes of COCO that OV-COCO learns from boxes (Bansal et al., Zero-Shot Object Detection, ECCV 2018)."""

COCO_NOVEL = (
    *("airplane", "bus", "cat", "dog", "cow", "elephant", "umbrella", "tie", "snowboard", "skateboard", "cup"),
    *("knife", "cake", "couch", "keyboard", "sink", "scissors"),
)
"""The 17 classes whose boxes OV-COCO never shows; COCO's other 15 take no part (same source)."""

RARE = "r"
FREQUENCIES = (RARE, "c", "f")


@dataclass(frozen=True, slots=True)
class OpenVocabulary:
    """What a protocol makes of an annotation file.

    ``names`` are the classes that compete, in the order of their ids, which is that of a reader's labels; ``novel``
    are those whose boxes training never sees. ``base_boxes`` is the file to train on. ``all_boxes`` is the file to
    evaluate on, None where that is the given one as it is. Rows are those of the given file, not copies.
    """

    names: tuple[str, ...]
    novel: tuple[str, ...]
    base_boxes: Document
    all_boxes: Document | None

    @property
    def base(self) -> tuple[str, ...]:
        """The classes that are learned from boxes, in the order of ``names``."""
        return tuple(name for name in self.names if name not in self.novel)


def ov_coco(file: CocoJson) -> OpenVocabulary:
    """Return the 48 + 17 classes of OV-COCO and COCO's file with their annotations alone.

    Both files list the 65 categories in the order of COCO's ids and leave out the other 15. The one to train on
    holds annotations of base classes alone, the one to evaluate on those of all 65, where base and novel classes
    compete (the generalised protocol); images without any of them are left out, which leaves 4,836 of val2017.
    Crowds are annotations like any other. Where nothing is to be left out, nothing changes.

    Raises:
        DataError: the file is none of COCO's instances, lacks one of the 65 classes, or names a class twice.

    Source: the files ``ovd_ins_train2017_b.json`` and ``..._all.json`` of ``microsoft/RegionCLIP``, and
    ``instances_train2017_seen_2_65_cat.json`` and ``instances_val2017_all_2.json`` of ``wusize/CLIPSelf``.
    """
    ids = _class_ids(file)
    if any("frequency" in row for row in file.categories):
        raise DataError(f"{file.path}: its categories tell how frequent they are, as LVIS's do. Use ov-lvis for it.")
    wanted = (*COCO_BASE, *COCO_NOVEL)
    if missing := [name for name in wanted if name not in ids]:
        raise DataError(
            f"{file.path}: lacks {len(missing)} of the 65 classes of OV-COCO: {_listed(missing)}. Give a file such as "
            "instances_train2017.json."
        )
    _check_boxes(file)
    base, known = ({ids[name] for name in names} for names in (COCO_BASE, wanted))
    categories = [row for row in file.categories if row["id"] in known]
    return OpenVocabulary(
        names=tuple(row["name"] for row in categories),
        novel=tuple(row["name"] for row in categories if row["id"] not in base),
        base_boxes=_with_boxes_of(base, file) | {"categories": categories},
        all_boxes=_with_boxes_of(known, file) | {"categories": categories},
    )


def ov_lvis(file: CocoJson) -> OpenVocabulary:
    """Return all classes of LVIS, its rare ones novel (337 of the 1,203 of v1), and its file without their boxes.

    A class is as rare as the file says by ``frequency``. All categories stay, and of the images those with a box of a
    base class, as the official loaders have it, with all that they say: ``neg_category_ids`` and
    ``not_exhaustive_category_ids`` too. Evaluation is on the official file.

    Raises:
        DataError: the file is none of LVIS, names a class twice, or has no rare class, or none but those.

    Source: ``lvis_v1_train_seen_1203_cat.json`` of ``wusize/CLIPSelf``, whose code knows base classes by an
    ``image_count`` above zero; here ``image_count`` stays what LVIS says, and ``frequency`` tells.
    """
    _class_ids(file)
    for row in file.categories:
        if row.get("frequency") not in FREQUENCIES:
            raise DataError(
                f"{file.path}: the category {row['name']!r} has 'frequency' = {row.get('frequency')!r}, not one of "
                f"{', '.join(FREQUENCIES)}. Give a file of LVIS such as lvis_v1_train.json."
            )
    _check_boxes(file)
    novel = rare_names(file.categories)
    if not 0 < len(novel) < len(file.categories):
        raise DataError(
            f"{file.path}: {len(novel)} of its {len(file.categories)} classes are rare ('frequency' = 'r'). "
            "The protocol wants some of either kind."
        )
    base = {row["id"] for row in file.categories if row["frequency"] != RARE}
    names = tuple(row["name"] for row in file.categories)
    return OpenVocabulary(names, novel, _with_boxes_of(base, file), None)


def rare_names(categories: Iterable[Entry]) -> tuple[str, ...]:
    """Return the names of LVIS's rare categories, the novel ones of open-vocabulary detection, in their order."""
    return tuple(row["name"] for row in categories if row.get("frequency") == RARE)


def novel_of_coco(names: Sequence[str]) -> tuple[str, ...]:
    """Return OV-COCO's novel names, in their order, where names are just its 65; else none, for nobody said so."""
    if len(names) != len(COCO_BASE) + len(COCO_NOVEL) or set(names) != {*COCO_BASE, *COCO_NOVEL}:
        return ()
    return tuple(name for name in names if name in COCO_NOVEL)


def _with_boxes_of(learned: Collection[int], file: CocoJson) -> Document:
    """Return the document with annotations of some categories alone, and the images that have one."""
    annotations = [row for row in file.document["annotations"] if row["category_id"] in learned]
    shown = {row["image_id"] for row in annotations}
    images = [row for row in file.images if row["id"] in shown]
    return {**file.document, "images": images, "annotations": annotations}


def _class_ids(file: CocoJson) -> dict[str, int]:
    """Return the id of every class by its name; a name that comes twice, be it in other letters, is an error."""
    first: dict[str, Entry] = {}
    for row in file.categories:
        if not _is_a_word(row["name"]):
            raise DataError(
                f"{file.path}: category {row['id']} is called {row['name']!r}, which no list of words can hold: a word "
                "is one line of text without '|', and does not start with '#'."
            )
        known = first.setdefault(row["name"].strip().casefold(), row)
        if known is not row:
            raise DataError(
                f"{file.path}: names the class {row['name']!r} twice, in the categories {known['id']} and {row['id']}. "
                "Keep one of them."
            )
    return {row["name"]: row["id"] for row in file.categories}


def _is_a_word(name: str) -> bool:
    lone = any("\ud800" <= letter <= "\udfff" for letter in name)
    return bool(name.strip()) and not name.startswith("#") and not set(name) & {"|", "\n", "\r"} and not lone


def _check_boxes(file: CocoJson) -> None:
    """Hold that every annotation has a class and an image of the file."""
    rows = file.document.get("annotations")
    if isinstance(rows, list) and rows and isinstance(rows[0], dict) and "segments_info" in rows[0]:
        raise DataError(f"{file.path}: holds panoptic segments, not boxes. Give a file such as instances_val2017.json.")
    rows = file.table("annotations", {"image_id": (int, str), "category_id": int})
    for index, row in enumerate(rows):
        file.label(row["category_id"], f"annotations[{index}]")
        file.check_box(row, f"annotations[{index}]")
    file.by_image(rows)


def _listed(names: Sequence[str], limit: int = 20) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more
