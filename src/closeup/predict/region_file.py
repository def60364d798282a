"""Boxes or masks of photos in a json file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from closeup._types import Boxes, Masks
from closeup.data.coco import CocoInstances
from closeup.data.coco_json import check_folder
from closeup.data.coco_panoptic import CocoPanoptic
from closeup.data.images import open_image
from closeup.data.record import Reader
from closeup.data.rle import decode_mask
from closeup.errors import DataError, InputError
from closeup.geometry import xywh_to_xyxy
from closeup.regions import as_boxes

FORMS = (
    "Give [[x0, y0, x1, y1], ...] for one photo, a list of COCO annotations for one photo, or a COCO file with its "
    "'images' for many."
)


@dataclass(frozen=True, slots=True, eq=False)
class PhotoRegions:
    """The regions of one photo, in pixels of the original, and their annotated names if there are any."""

    boxes: Boxes | None
    masks: Masks | None
    names: tuple[str, ...] | None = None


class RegionFile:
    """A json file of regions: bare boxes, COCO annotations, or a whole COCO file (instances or panoptic).

    Raises:
        DataError: the file is missing, is not json, or holds nothing of the kind.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content = _read(path)
        self._reader: Reader | None = None
        if isinstance(self._content, dict) and "images" in self._content:
            self._reader, names = _open(path, self._content)
            self._index = _places(names, path)
        else:
            self._rows = _rows(self._content, path)

    @property
    def many(self) -> bool:
        """Whether the file tells which photo a region belongs to."""
        return self._reader is not None

    def check(self, photos: Sequence[Path]) -> None:
        """Raise InputError where there are several photos and the file does not tell them apart."""
        if len(photos) > 1 and not self.many:
            raise InputError(f"{self._path}: bare regions belong to one photo, but {len(photos)} were given.")

    def of(self, photo: Path) -> PhotoRegions:
        """Return the regions of a photo; DataError if they are not what they should be, or there are none."""
        found = self._bare(photo) if self._reader is None else self.listed(photo.name)
        regions = found.boxes if found.boxes is not None else found.masks
        if regions is None or not len(regions):
            raise DataError(f"{self._path} holds no region of {photo}.")
        return found

    def listed(self, name: str) -> PhotoRegions:
        """Return the regions, of which there may be none, of a photo by its file name; DataError for an unknown one."""
        if self._reader is None or name not in self._index:
            raise DataError(f"{self._path} lists no image of the name {name!r}, so it has no regions.")
        record = self._reader[self._index[name]]
        labels = [] if record.labels is None else record.labels.tolist()
        return PhotoRegions(record.boxes, record.masks, tuple(self._reader.names[label] for label in labels))

    def _bare(self, photo: Path) -> PhotoRegions:
        if not any(isinstance(row, Mapping) for row in self._rows):
            return PhotoRegions(as_boxes(self._rows), None)
        picture = open_image(photo)
        boxes, masks = [], []
        for index, row in enumerate(self._rows):
            where = f"{self._path}: annotation {index}"
            if not isinstance(row, Mapping) or not ("bbox" in row or row.get("segmentation")):
                raise DataError(f"{where} has neither 'bbox' nor 'segmentation': {row!r:.60}.")
            boxes.append(row.get("bbox"))
            if row.get("segmentation"):
                masks.append(decode_mask(row["segmentation"], picture.height, picture.width, where))
        whole = len(masks) == len(self._rows)
        planes = torch.from_numpy(np.stack(masks)) if whole else None
        if any(box is None for box in boxes):
            if planes is None:
                raise DataError(f"{self._path}: some annotations have only a 'bbox', others only a 'segmentation'.")
            return PhotoRegions(None, planes)
        return PhotoRegions(xywh_to_xyxy(as_boxes(boxes)), planes)


def _read(path: Path) -> Any:  # noqa: ANN401 - json of an unknown form
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not a json file ({error}). {FORMS}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error


def _rows(content: object, path: Path) -> list[Any]:
    rows = content.get("annotations", content.get("boxes")) if isinstance(content, dict) else content
    if not isinstance(rows, list):
        keys = f"the keys {sorted(content)}" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise DataError(f"{path}: holds {keys}, no regions. {FORMS}")
    return rows


def _open(path: Path, content: Mapping[str, Any]) -> tuple[Reader, list[str]]:
    """Return a reader of the file and the name of each record's photo; the readers check the tables first."""
    rows = content.get("annotations")
    panoptic = isinstance(rows, list) and any(isinstance(row, dict) and "segments_info" in row for row in rows)
    reader: Reader = _open_panoptic(path) if panoptic else CocoInstances(path, None)
    names = {
        image["id"]: Path(str(image.get("file_name") or image.get("coco_url"))).name for image in content["images"]
    }
    if panoptic and isinstance(rows, list):
        return reader, [names[row["image_id"]] for row in rows]
    return reader, list(names.values())


def _open_panoptic(path: Path) -> Reader:
    masks = check_folder(path.with_suffix(""), "panoptic PNGs", "the PNGs in a folder of the json's name beside it")
    return CocoPanoptic(path, masks, None)


def _places(names: list[str], path: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for index, name in enumerate(names):
        if name in found:
            raise InputError(f"{path}: two images are called {name!r}; photos are found by name, so make them unique.")
        found[name] = index
    return found
