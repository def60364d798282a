"""COCO instances and captions: boxes, masks and sentences from the official json files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch

from closeup._types import IGNORE, Boxes, Groups, Masks
from closeup.data.coco_json import CocoJson, Entry, check_folder, image_path, image_size, record_id
from closeup.data.open_vocabulary import novel_of_coco
from closeup.data.record import Record
from closeup.data.rle import decode_mask
from closeup.errors import DataError
from closeup.geometry import masks_to_boxes, xywh_to_xyxy, xyxy_to_xywh

Crowd: TypeAlias = Literal["skip", "ignore", "keep"]
"""What becomes of annotations marked ``iscrowd``, which outline a group and not a thing.

``skip``: no region; ``ignore``: a region labelled IGNORE; ``keep``: a region like any other. Unless they are kept,
records have them as ``groups``.
"""


class CocoInstances:
    """Things with boxes and masks, from a file like ``instances_val2017.json``; every image of it is a record.

    Names are sorted by category id, as the official evaluation counts them. Boxes are the annotations' own,
    not those of the masks; an annotation without a box takes that of its mask, and one whose box has no width
    or height is left out. Records carry masks where their annotations do (``masks=False`` spares the
    decoding), and attributes where every region has some. ``images=None`` reads annotations without pictures:
    the image of a record is then a bare file name. ``novel`` are the 17 novel names where the file's categories are
    just OV-COCO's 65, else none.

    Raises:
        DataError: a file or folder is missing or does not hold what it should. Masks are checked when a
            record is read, all else at once.
    """

    names: tuple[str, ...]
    things: tuple[bool, ...]
    novel: tuple[str, ...]

    def __init__(
        self,
        annotations: str | Path | CocoJson,
        images: str | Path | None = None,
        *,
        masks: bool = True,
        crowd: Crowd = "skip",
    ) -> None:
        self._json = annotations if isinstance(annotations, CocoJson) else CocoJson.read(annotations)
        self._folder = None if images is None else check_folder(images, "images")
        self._crowd = crowd
        self.names = tuple(row["name"] for row in self._json.categories)
        self.things = (True,) * len(self.names)
        self.novel = novel_of_coco(self.names)
        rows = self._json.table("annotations", {"image_id": (int, str), "category_id": int})
        self._masks = masks and any(row.get("segmentation") for row in rows)
        for index, row in enumerate(rows):
            self._check(row, f"annotations[{index}]")
        gathered = self._json.by_image(rows)
        self._rows = {image: list(filter(self._wanted, each)) for image, each in gathered.items()}
        crowded = {image: [row for row in each if row.get("iscrowd")] for image, each in gathered.items()}
        self._groups = {} if crowd == "keep" else crowded

    def __len__(self) -> int:
        return len(self._json.images)

    def __getitem__(self, index: int, /) -> Record:
        image = self._json.images[index]
        rows = self._rows[image["id"]]
        masks = self._decode(image, rows) if self._masks else None
        return Record(
            id=record_id(image),
            image=image_path(image, self._folder),
            size=image_size(image),
            boxes=self._boxes(image, rows),
            masks=masks,
            labels=torch.tensor([self._label(row) for row in rows], dtype=torch.int64),
            attributes=_attributes(rows),
            groups=self._grouped(image),
        )

    def _grouped(self, image: Entry) -> Groups | None:
        rows = self._groups.get(image["id"], [])
        if not rows:
            return None
        boxes = self._boxes(image, rows)
        masks = None
        if self._masks:
            shaped = [
                row if row.get("segmentation") else {**row, "segmentation": _outline(row["bbox"])} for row in rows
            ]
            masks = self._decode(image, shaped)
        return Groups(boxes, torch.tensor([self._json.label_of[row["category_id"]] for row in rows]), masks)

    def _check(self, row: Entry, where: str) -> None:
        self._json.label(row["category_id"], where)
        box, outline = row.get("bbox"), row.get("segmentation")
        self._json.check_box(row, where)
        if box is None and not outline:
            raise DataError(f"{self._json.path}: {where} has neither 'bbox' nor 'segmentation'.")
        if self._masks and not outline and self._wanted(row):
            raise DataError(
                f"{self._json.path}: {where} has no 'segmentation' while others have;"
                " pass masks=False to read boxes only."
            )

    def _wanted(self, row: Entry) -> bool:
        if self._crowd == "skip" and row.get("iscrowd"):
            return False
        return row.get("bbox") is None or (row["bbox"][2] > 0 and row["bbox"][3] > 0)

    def _label(self, row: Entry) -> int:
        ignored = self._crowd == "ignore" and row.get("iscrowd")
        return IGNORE if ignored else self._json.label_of[row["category_id"]]

    def _decode(self, image: Entry, rows: Sequence[Entry]) -> Masks:
        where = f"{self._json.path}: image {image['id']!r}"
        size = image_size(image)
        if size is None:
            raise DataError(f"{where} says no 'height' and 'width', without which masks cannot be drawn.")
        planes = [decode_mask(row["segmentation"], *size, f"{where}, annotation {row.get('id')}") for row in rows]
        return torch.from_numpy(np.stack(planes)) if planes else torch.zeros(0, *size, dtype=torch.bool)

    def _boxes(self, image: Entry, rows: Sequence[Entry]) -> Boxes:
        given = [row["bbox"] if row.get("bbox") is not None else self._tight(image, row) for row in rows]
        # Added in double precision, so that corners written as x + width come back to the bit.
        return xywh_to_xyxy(torch.tensor(given, dtype=torch.float64).reshape(-1, 4)).float()

    def _tight(self, image: Entry, row: Entry) -> list[float]:
        box: list[float] = xyxy_to_xywh(masks_to_boxes(self._decode(image, [row])))[0].tolist()
        return box


class CocoCaptions:
    """Sentences about whole images, from a file like ``captions_val2017.json``.

    Raises:
        DataError: a file or folder is missing or does not hold what it should.
    """

    names: tuple[str, ...] = ()
    things: tuple[bool, ...] = ()

    def __init__(self, annotations: str | Path, images: str | Path | None = None) -> None:
        self._json = CocoJson.read(annotations)
        self._folder = None if images is None else check_folder(images, "images")
        rows = self._json.table("annotations", {"image_id": (int, str), "caption": str})
        self._rows = self._json.by_image(rows)

    def __len__(self) -> int:
        return len(self._json.images)

    def __getitem__(self, index: int, /) -> Record:
        image = self._json.images[index]
        return Record(
            id=record_id(image),
            image=image_path(image, self._folder),
            size=image_size(image),
            captions=self._sentences(image),
        )

    def by_record(self) -> Mapping[str, tuple[str, ...]]:
        """Return every image's captions under its record's id, without touching the pictures."""
        return {record_id(image): self._sentences(image) for image in self._json.images}

    def _sentences(self, image: Entry) -> tuple[str, ...]:
        return tuple(row["caption"].strip() for row in self._rows[image["id"]])


def _outline(box: Sequence[float]) -> list[list[float]]:
    """Return the polygon of a box."""
    x, y, width, height = box
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def _attributes(rows: Sequence[Entry]) -> tuple[Mapping[str, str], ...]:
    given = [row.get("attributes") for row in rows]
    if not given or not all(isinstance(each, dict) for each in given):
        return ()
    return tuple({str(key): str(value) for key, value in each.items()} for each in given if each is not None)
