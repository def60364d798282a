"""Regions of a label map, all pixels of one label together; and a label map of regions."""

from __future__ import annotations

from dataclasses import replace

import torch

from closeup._types import IGNORE, LabelMap
from closeup.data.record import Record
from closeup.errors import DataError
from closeup.geometry import masks_to_boxes


def with_map_regions(record: Record) -> Record:
    """Return a record whose regions are those of its label map, one per label that is there, in order.

    Raises:
        DataError: there is no label map.
    """
    if record.label_map is None:
        raise DataError(f"Record {record.id!r} has no label map. Give a data set that has them.")
    labels = present_labels(record.label_map)
    masks = record.label_map[None] == torch.tensor(labels, dtype=torch.long)[:, None, None]
    return replace(
        record,
        boxes=masks_to_boxes(masks),
        masks=masks,
        labels=torch.tensor(labels, dtype=torch.long),
        attributes=(),
    )


def label_map_of(record: Record) -> LabelMap:
    """Return a record's label map, or one painted from its masks: smaller ones over larger, IGNORE where there is none.

    Raises:
        DataError: there is neither a label map nor labelled masks.
    """
    if record.label_map is not None:
        return record.label_map
    if record.masks is None or record.labels is None:
        raise DataError(f"Record {record.id!r} has no label map and no labelled masks. Give a data set that has them.")
    label_map = torch.full(record.masks.shape[1:], IGNORE)
    for row in record.masks.flatten(1).sum(dim=1).argsort(descending=True, stable=True).tolist():
        label_map[record.masks[row]] = record.labels[row]
    return label_map


def present_labels(label_map: LabelMap) -> list[int]:
    """Return the labels that a map holds, without what takes no part."""
    found: list[int] = label_map.unique().tolist()
    return [label for label in found if label != IGNORE]
