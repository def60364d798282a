"""The segments that a record says its picture is cut into: its regions, and what only its label map names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from closeup._types import IGNORE, Boxes, Masks
from closeup.data.record import Record
from closeup.errors import InputError


class RecordSegment(NamedTuple):
    """One segment: its pixels, its class, the box of a region that has one, and whether it is several things."""

    mask: Bool[Tensor, "height width"]
    label: int
    box: Boxes | None
    crowd: bool


def record_segments(record: Record, things: Sequence[bool]) -> Iterator[RecordSegment]:
    """Yield every region as a segment; pixels that only the label map names become one more segment a class.

    That is a stuff, or for a thing, whose instances the map does not tell apart, a crowd. Regions labelled IGNORE or
    without a pixel are left out. ``things`` has one mark a class.

    Raises:
        InputError: there are neither masks nor a label map, masks overlap, or a label has no class.
    """
    size, labels = segment_size(record), region_labels(record, len(things))
    masks = torch.zeros(0, *size, dtype=torch.bool) if record.masks is None else record.masks.cpu()
    _check_apart(record.id, masks)
    for index, mask in enumerate(masks):
        box = None if record.boxes is None else record.boxes[index : index + 1].cpu()
        if labels[index] != IGNORE and mask.any():
            yield RecordSegment(mask, labels[index], box, crowd=False)
    for label, mask in _rest(record, masks, len(things)):
        yield RecordSegment(mask, label, None, crowd=things[label])


def segment_size(record: Record) -> tuple[int, int]:
    """Return height and width of a record's masks, or of its label map."""
    plane = record.label_map if record.masks is None else record.masks
    if plane is None:
        raise InputError(f"Record {record.id!r} has neither masks nor a label map, of which segments are made.")
    return plane.shape[-2], plane.shape[-1]


def region_labels(record: Record, count: int) -> list[int]:
    """Return the labels of a record's regions, each IGNORE or below ``count``; InputError where they are not."""
    if record.labels is None:
        if record.count:
            raise InputError(
                f"Record {record.id!r} has {record.count} regions without labels; COCO needs a class each."
            )
        return []
    labels: list[int] = record.labels.tolist()
    strange = [label for label in labels if label != IGNORE and not 0 <= label < count]
    if strange:
        raise InputError(f"Record {record.id!r} has the label {strange[0]}, but there are {count} names.")
    return labels


def _rest(record: Record, masks: Masks, count: int) -> Iterator[tuple[int, Bool[Tensor, "height width"]]]:
    if record.label_map is None:
        return
    label_map = record.label_map.cpu().where(~masks.any(dim=0), torch.tensor(IGNORE))
    for label in label_map.unique().tolist():
        if label == IGNORE:
            continue
        if not 0 <= label < count:
            raise InputError(f"Record {record.id!r} has the label {label} in its map, but there are {count} names.")
        yield label, label_map == label


def _check_apart(identity: str, masks: Masks) -> None:
    depth = masks.sum(dim=0)
    if bool((depth > 1).any()):
        first = masks[:, (depth > 1)].any(dim=1).nonzero()[:2, 0].tolist()
        raise InputError(
            f"Record {identity!r}: its masks overlap (regions {first} among them), but a panoptic pixel belongs to one"
            " segment. Cut the hidden parts away first."
        )
