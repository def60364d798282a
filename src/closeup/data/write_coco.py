"""Records out as COCO files: the inverse of the readers in coco.py and coco_panoptic.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from jaxtyping import Int

from closeup._types import IGNORE
from closeup.data.atomic import replacing, write_json
from closeup.data.coco_json import RECORD_ID
from closeup.data.coco_panoptic import VOID, colour_segments
from closeup.data.record import Record
from closeup.data.record_segments import record_segments, region_labels, segment_size
from closeup.data.rle import encode_mask
from closeup.data.write_pictures import original_size, picture_name, safe_name, write_picture
from closeup.errors import InputError
from closeup.geometry import areas, masks_to_boxes, xyxy_to_xywh


def write_coco_instances(
    records: Iterable[Record], names: Sequence[str], path: str | Path, *, images: str | Path | None = None
) -> Path:
    """Write regions as a COCO instances file and return its path; with ``images``, the pictures into that folder.

    Masks become compressed run lengths, attributes are kept beside each annotation, a region without a box
    takes that of its mask. Regions labelled IGNORE are left out. The json file is written last and whole, so
    an interrupted export leaves none.

    Raises:
        InputError: a region has no label, a label has no name, or two records have the same id.
    """
    tables = _Tables(names, (True,) * len(names), images)
    for record in records:
        place = tables.add_image(record)
        for annotation in _instances(record, len(names)):
            tables.add_annotation(place, annotation)
    return tables.write(Path(path).expanduser())


def write_coco_captions(records: Iterable[Record], path: str | Path, *, images: str | Path | None = None) -> Path:
    """Write captions as a COCO captions file and return its path; with ``images``, the pictures too.

    Raises:
        InputError: two records have the same id.
    """
    tables = _Tables((), (), images)
    for record in records:
        place = tables.add_image(record)
        for caption in record.captions:
            tables.add_annotation(place, {"caption": caption})
    return tables.write(Path(path).expanduser())


def write_coco_panoptic(
    records: Iterable[Record],
    names: Sequence[str],
    things: Sequence[bool],
    path: str | Path,
    masks: str | Path,
    *,
    images: str | Path | None = None,
) -> Path:
    """Write a COCO panoptic file with its folder of PNGs, ``masks``, and return the path of the json.

    Every region is a segment. Pixels that only the label map names become one more segment a class: a stuff,
    or for a thing, whose instances they do not tell apart, a crowd. Regions labelled IGNORE or without a pixel
    are left out. The json file is written last and whole.

    Raises:
        InputError: a record has neither masks nor a label map, its masks overlap, a label has no name, or two
            records have the same id.
    """
    tables = _Tables(names, things, images)
    folder = Path(masks).expanduser()
    for record in records:
        place = tables.add_image(record)
        ids, segments = _segments(record, things)
        name = safe_name(record.id) + ".png"
        with replacing(folder / name) as temporary:
            PIL.Image.fromarray(colour_segments(ids)).save(temporary)
        tables.add_annotation(place, {"file_name": name, "segments_info": segments})
    return tables.write(Path(path).expanduser())


class _Tables:
    """The tables of one file while it grows; ids are settled last, when all records are known."""

    def __init__(self, names: Sequence[str], things: Sequence[bool], images: str | Path | None) -> None:
        if len(names) != len(things):
            raise InputError(f"things says {len(things)} kinds for {len(names)} names; give one for each.")
        self._categories = [
            {"id": label + 1, "name": name, "isthing": int(thing)}
            for label, (name, thing) in enumerate(zip(names, things, strict=True))
        ]
        self._folder = None if images is None else Path(images).expanduser()
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._seen: set[str] = set()

    def add_image(self, record: Record) -> int:
        if record.id in self._seen:
            raise InputError(f"Two records have the id {record.id!r}; make ids unique before writing.")
        self._seen.add(record.id)
        height, width = original_size(record)
        name = picture_name(record) if self._folder is None else write_picture(record, self._folder)
        self._images.append({RECORD_ID: record.id, "file_name": name, "height": height, "width": width})
        return len(self._images) - 1

    def add_annotation(self, place: int, annotation: dict[str, Any]) -> None:
        self._annotations.append({"id": len(self._annotations) + 1, "image_id": place, **annotation})

    def write(self, path: Path) -> Path:
        ids = image_ids([image[RECORD_ID] for image in self._images])
        images = [_with_id(image, ids[place]) for place, image in enumerate(self._images)]
        annotations = [{**annotation, "image_id": ids[annotation["image_id"]]} for annotation in self._annotations]
        # pycocotools asks annotations for a category wherever there is a table of categories.
        categories = {"categories": self._categories} if self._categories else {}
        document = {"info": {}, "licenses": [], "images": images, "annotations": annotations, **categories}
        write_json(path, document)
        return path


def image_ids(records: Sequence[str], first: int = 1) -> list[int]:
    """Return the records' own ids where all are whole numbers as COCO's are, else ``first``, and so on."""
    if all(each.isascii() and each.isdecimal() and str(int(each)) == each for each in records):
        return [int(each) for each in records]
    return list(range(first, len(records) + first))


def _with_id(image: dict[str, Any], number: int) -> dict[str, Any]:
    kept = {key: value for key, value in image.items() if key != RECORD_ID or value != str(number)}
    return {"id": number, **kept}


def _instances(record: Record, count: int) -> Iterator[dict[str, Any]]:
    labels = region_labels(record, count)
    boxes = record.known_boxes()
    if boxes is None:
        return
    sizes = areas(boxes.double()) if record.masks is None else record.masks.sum(dim=(1, 2))
    for index, box in enumerate(xyxy_to_xywh(boxes.double()).tolist()):
        if labels[index] == IGNORE:
            continue
        annotation = {"category_id": labels[index] + 1, "bbox": box, "area": float(sizes[index]), "iscrowd": 0}
        if record.masks is not None:
            annotation["segmentation"] = encode_mask(record.masks[index].numpy(force=True))
        if record.attributes:
            annotation["attributes"] = dict(record.attributes[index])
        yield annotation


def _segments(record: Record, things: Sequence[bool]) -> tuple[Int[np.ndarray, "height width"], list[dict[str, Any]]]:
    ids = np.full(segment_size(record), VOID, dtype=np.int64)
    segments: list[dict[str, Any]] = []
    for number, found in enumerate(record_segments(record, things), start=1):
        ids[found.mask.numpy()] = number
        corners = masks_to_boxes(found.mask[None]) if found.box is None else found.box
        segments.append(
            {
                "id": number,
                "category_id": found.label + 1,
                "area": int(found.mask.sum()),
                "bbox": xyxy_to_xywh(corners.double())[0].tolist(),
                "iscrowd": int(found.crowd),
            }
        )
    return ids, segments
