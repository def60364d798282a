"""What is to be found in a record: its boxes of things, crowds among them, and their masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from closeup._types import IGNORE, Labels, Masks
from closeup.data.record import Reader, Record
from closeup.data.things import thing_labels
from closeup.errors import DataError


def things_of(reader: Reader) -> Mapping[int, int]:
    """Return the place of each of the reader's labels that is a thing among the things."""
    return {label: place for place, label in enumerate(thing_labels(reader))}


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """A record's boxes of things, the place of each among them, and which are crowds; those come last."""

    boxes: Float[Tensor, "count 4"]
    labels: Labels
    crowd: tuple[bool, ...]


def truth_of(record: Record, things: Mapping[int, int]) -> Truth:
    """Return what is to be found; boxes to ignore are not among it."""
    if record.boxes is None or record.labels is None:
        raise DataError(f"Record {record.id!r} has no labelled boxes: there is nothing to compare with.")
    places = _places(record.labels, things)
    known = places != IGNORE
    boxes, labels, crowd = record.boxes.float()[known], places[known], [False] * int(known.sum())
    if record.groups is not None:
        grouped = _places(record.groups.labels, things)
        known = grouped != IGNORE
        boxes, labels = torch.cat([boxes, record.groups.boxes[known]]), torch.cat([labels, grouped[known]])
        crowd += [True] * int(known.sum())
    return Truth(boxes, labels, tuple(crowd))


def masks_of(record: Record, things: Mapping[int, int]) -> Masks:
    """Return the masks of what is to be found, in its order."""
    if record.masks is None or record.labels is None or (record.groups is not None and record.groups.masks is None):
        raise DataError(f"Record {record.id!r} has no masks. Give a data set that has them, or measure boxes.")
    masks = record.masks[_places(record.labels, things) != IGNORE]
    if record.groups is None or record.groups.masks is None:
        return masks
    return torch.cat([masks, record.groups.masks[_places(record.groups.labels, things) != IGNORE]])


def _places(labels: Labels, things: Mapping[int, int]) -> Labels:
    return torch.tensor([things.get(label, IGNORE) for label in labels.tolist()], dtype=torch.long)
