"""FG-OVD files out: regions with a right caption and wrong ones, gathered once, written in any number of files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from closeup.data.atomic import write_json
from closeup.data.coco_json import RECORD_ID
from closeup.data.fgovd import NEGATIVES
from closeup.data.record import Description, Record
from closeup.data.rle import encode_mask
from closeup.data.write_coco import image_ids
from closeup.data.write_pictures import original_size, picture_name, write_picture
from closeup.errors import InputError
from closeup.geometry import xyxy_to_xywh


def write_fgovd(records: Iterable[Record], path: str | Path, *, images: str | Path | None = None) -> Path:
    """Write the described regions of records as one FG-OVD file and return its path.

    ``images`` is a folder for the pictures; without it they are only named. Regions without wrong captions are left
    out, and pictures without regions.

    Raises:
        InputError: as `DescribedRegions.add`.
    """
    gathered, descriptions = DescribedRegions(), list[Description]()
    for record in records:
        name = picture_name(record) if images is None else write_picture(record, Path(images).expanduser())
        gathered.add(record, name)
        descriptions += record.descriptions
    gathered.write(path, descriptions)
    return Path(path).expanduser()


class DescribedRegions:
    """The regions of pictures with their right captions, to which several files give other wrong captions."""

    rights: list[str]
    """The right caption of each region, in the order in which they were added."""

    def __init__(self) -> None:
        self.rights = []
        self._images: list[dict[str, Any]] = []
        self._regions: list[dict[str, Any]] = []

    def add(self, record: Record, name: str) -> None:
        """Add a record's regions; ``name`` is the file name of its picture.

        Raises:
            InputError: the record has regions without boxes or descriptions.
        """
        height, width = original_size(record)
        place = len(self._images)
        self._images.append({RECORD_ID: record.id, "file_name": name, "height": height, "width": width})
        if not record.count:
            return
        if record.boxes is None or not record.descriptions:
            raise InputError(
                f"Record {record.id!r} has regions without boxes or descriptions, which FG-OVD files need."
            )
        for index, box in enumerate(xyxy_to_xywh(record.boxes.double()).tolist()):
            region = {"image_id": place, "bbox": box, "area": box[2] * box[3]}
            if record.masks is not None:
                region["area"] = int(record.masks[index].sum())
                region["segmentation"] = encode_mask(record.masks[index].numpy(force=True))
            if record.attributes:
                region["attributes"] = dict(record.attributes[index])
            self._regions.append(region)
            self.rights.append(record.descriptions[index].right)

    def write(self, path: str | Path, descriptions: Sequence[Description]) -> int:
        """Write a file, whole or not at all, and return the number of its regions.

        ``descriptions`` are one for each region that was added; those without wrong captions are left out.
        Regions of equal description share their categories, as in the official files.
        """
        captions = _Captions()
        ids = image_ids([image[RECORD_ID] for image in self._images], first=0)
        annotations: list[dict[str, Any]] = []
        for region, description in zip(self._regions, descriptions, strict=True):
            if not description.wrong:
                continue
            right, *wrong = captions.ids(description)
            region = {**region, "image_id": ids[region["image_id"]], "category_id": right, NEGATIVES: wrong}
            annotations.append({"id": len(annotations) + 1, **region})
        shown = {row["image_id"] for row in annotations}
        images = [
            {"id": number, **image, NEGATIVES: [], "not_exhaustive_category_ids": []}
            for number, image in zip(ids, self._images, strict=True)
            if number in shown
        ]
        document = {"images": images, "annotations": annotations, "categories": captions.table(annotations)}
        write_json(Path(path).expanduser(), document)
        return len(annotations)


class _Captions:
    """The table of categories while it grows: each caption, right or wrong, is one of its own."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._known: dict[Description, range] = {}

    def ids(self, description: Description) -> range:
        """Return the ids of the right caption and of the wrong ones, in order."""
        if description not in self._known:
            first = len(self._texts) + 1
            self._texts += [description.right, *description.wrong]
            self._known[description] = range(first, len(self._texts) + 1)
        return self._known[description]

    def table(self, annotations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows, which count the annotations of each right caption."""
        images: defaultdict[int, list[int]] = defaultdict(list)
        for row in annotations:
            images[row["category_id"]].append(row["image_id"])
        blank = {"synset": "", "synonyms": [], "def": "", "frequency": "f"}
        return [
            {
                "id": number,
                "name": text,
                **blank,
                "image_count": len(set(images[number])),
                "instance_count": len(images[number]),
            }
            for number, text in enumerate(self._texts, start=1)
        ]
