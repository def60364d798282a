"""COCO panoptic: every pixel belongs to one segment, a thing or a stuff, told by its colour in a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from jaxtyping import Int, UInt8

from closeup._types import IGNORE, Boxes, Groups, LabelMap, Masks
from closeup.data.coco import Crowd
from closeup.data.coco_json import CocoJson, Entry, check_folder, image_path, image_size, record_id
from closeup.data.record import Record
from closeup.errors import DataError
from closeup.geometry import masks_to_boxes, xywh_to_xyxy

VOID = 0
"""The segment id of pixels that belong to nothing."""


class CocoPanoptic:
    """Segments with masks, boxes and a label map, from a file like ``panoptic_val2017.json`` and its PNG folder.

    Names are sorted by category id (133 in COCO: 80 things, 53 stuff). The box of a thing is the annotation's,
    that of a stuff is the tight box of its mask. ``crowd`` says whether segments marked ``iscrowd`` become
    regions, and records have them as ``groups`` where they do not; in the label map they keep their category, as in
    COCO's own conversion to semantic maps. Records are the annotated images. ``masks`` is the folder of PNGs;
    ``images=None`` reads without pictures.

    Raises:
        DataError: a file or folder is missing or does not hold what it should; a PNG that disagrees with the
            json is found when its record is read.
    """

    names: tuple[str, ...]
    things: tuple[bool, ...]

    def __init__(
        self,
        annotations: str | Path,
        masks: str | Path,
        images: str | Path | None = None,
        *,
        crowd: Crowd = "skip",
    ) -> None:
        self._json = CocoJson.read(annotations)
        self._masks = check_folder(masks, "panoptic PNGs")
        self._folder = None if images is None else check_folder(images, "images")
        self._crowd = crowd
        for index, row in enumerate(self._json.categories):
            self._json.check(row, {"isthing": int}, f"category {index} by id")
        self.names = tuple(row["name"] for row in self._json.categories)
        self.things = tuple(bool(row["isthing"]) for row in self._json.categories)
        self._rows = self._json.table("annotations", {"image_id": (int, str), "file_name": str, "segments_info": list})
        self._image_of = {image["id"]: image for image in self._json.images}
        self._json.by_image(self._rows)  # for its check that every annotation has an image
        for index, row in enumerate(self._rows):
            for place, segment in enumerate(row["segments_info"]):
                where = f"annotations[{index}], segments_info[{place}]"
                self._json.check(segment, {"id": int, "category_id": int}, where)
                self._json.label(segment["category_id"], where)
                self._json.check_box(segment, where)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int, /) -> Record:
        row = self._rows[index]
        image = self._image_of[row["image_id"]]
        ids = self._read(row, image_size(image))
        segments = [segment for segment in row["segments_info"] if not (self._crowd == "skip" and _is_crowd(segment))]
        masks = _masks(ids, segments)
        return Record(
            id=record_id(image),
            image=image_path(image, self._folder),
            size=(ids.shape[0], ids.shape[1]),
            boxes=self._boxes(segments, masks),
            masks=masks,
            labels=torch.tensor([self._label(segment) for segment in segments], dtype=torch.int64),
            label_map=self._label_map(ids, row["segments_info"]),
            groups=self._grouped(ids, row["segments_info"]),
        )

    def _grouped(self, ids: Int[np.ndarray, "height width"], segments: Sequence[Entry]) -> Groups | None:
        crowds = [] if self._crowd == "keep" else list(filter(_is_crowd, segments))
        if not crowds:
            return None
        masks = _masks(ids, crowds)
        labels = torch.tensor([self._json.label_of[segment["category_id"]] for segment in crowds])
        return Groups(self._boxes(crowds, masks), labels, masks)

    def _read(self, row: Entry, size: tuple[int, int] | None) -> Int[np.ndarray, "height width"]:
        path = self._masks / row["file_name"]
        ids = read_segments(path)
        if size is not None and ids.shape != size:
            raise DataError(f"{path}: is {ids.shape}, but its image is {size} (height, width) in {self._json.path}.")
        drawn = set(np.unique(ids).tolist()) - {VOID}
        told = {segment["id"] for segment in row["segments_info"]}
        if drawn != told:
            what, ids_off = ("drawn but not in the json", drawn - told) if drawn - told else ("not drawn", told - drawn)
            raise DataError(
                f"{path}: disagrees with {self._json.path} about image {row['image_id']!r}:"
                f" segments {sorted(ids_off)[:5]} are {what}."
            )
        return ids

    def _label(self, segment: Entry) -> int:
        if self._crowd == "ignore" and _is_crowd(segment):
            return IGNORE
        return self._json.label_of[segment["category_id"]]

    def _boxes(self, segments: Sequence[Entry], masks: Masks) -> Boxes:
        boxes = masks_to_boxes(masks)
        for index, segment in enumerate(segments):
            given = segment.get("bbox")
            if given is not None and self.things[self._json.label_of[segment["category_id"]]]:
                boxes[index] = xywh_to_xyxy(torch.tensor([given], dtype=torch.float64))[0]
        return boxes

    def _label_map(self, ids: Int[np.ndarray, "height width"], segments: Sequence[Entry]) -> LabelMap:
        label_map = np.full(ids.shape, IGNORE, dtype=np.int64)
        for segment in segments:
            label_map[ids == segment["id"]] = self._json.label_of[segment["category_id"]]
        return torch.from_numpy(label_map)


def read_segments(path: Path) -> Int[np.ndarray, "height width"]:
    """Return the segment id of every pixel of a panoptic PNG: red + 256 green + 256^2 blue; 0 is void.

    Raises:
        DataError: the file is missing or is not an RGB picture.
    """
    try:
        with PIL.Image.open(path) as picture:
            if picture.mode != "RGB":
                raise DataError(f"{path}: a panoptic PNG is RGB, not of PIL mode {picture.mode}.")
            colours = np.asarray(picture, dtype=np.int64)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such panoptic PNG.") from error
    except (OSError, SyntaxError) as error:
        raise DataError(f"{path}: the panoptic PNG cannot be read ({error}).") from error
    return np.asarray(colours @ np.array([1, 256, 65536]))


def colour_segments(ids: Int[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width 3"]:
    """Return the RGB picture whose colours spell segment ids below 256^3; `read_segments` is the inverse."""
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8)


def _is_crowd(segment: Entry) -> bool:
    return bool(segment.get("iscrowd"))


def _masks(ids: Int[np.ndarray, "height width"], segments: Sequence[Entry]) -> Masks:
    wanted = np.array([segment["id"] for segment in segments], dtype=np.int64)
    return torch.from_numpy(ids[None] == wanted[:, None, None])
