"""Regions with a caption each, from COCO-like files such as those that RefCOCO and Visual Genome are turned into."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from closeup.data.coco_json import CocoJson
from closeup.data.fgovd import NEGATIVES, FgOvd
from closeup.errors import DataError


def open_described(annotations: str | Path, images: Sequence[Path] | None = None, *, masks: bool = True) -> FgOvd:
    """Open a json file whose annotations describe regions: an FG-OVD file, or COCO's form with a "caption" in each.

    Such a caption is the right one, and there are no wrong ones; categories, where the file has any, are not looked at.

    Raises:
        DataError: as `FgOvd`, or annotations have neither captions nor wrong captions.
    """
    file = CocoJson.read(annotations)
    rows = file.table("annotations", {"image_id": (int, str)})
    if any(NEGATIVES in row for row in rows):
        return FgOvd(file, images, masks=masks)
    if not any("caption" in row for row in rows):
        raise DataError(
            f"{file.path}: its annotations have neither {NEGATIVES!r}, as FG-OVD's have, nor 'caption'; nothing says"
            " what its regions are."
        )
    rows = file.table("annotations", {"bbox": list, "caption": str})
    described = [{**row, "category_id": number, NEGATIVES: []} for number, row in enumerate(rows, start=1)]
    captions = [{"id": number, "name": row["caption"].strip()} for number, row in enumerate(rows, start=1)]
    document = {**file.document, "annotations": described, "categories": captions}
    return FgOvd(CocoJson(file.path, document), images, masks=masks)
