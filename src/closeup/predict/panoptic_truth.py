"""What is to be found in a record: the segments that its picture is cut into."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from closeup._types import IGNORE
from closeup.data.record import Record
from closeup.data.record_segments import record_segments, segment_size
from closeup.errors import DataError, InputError
from closeup.evaluate.panoptic import Segments


def segments_of(record: Record, things: Sequence[bool]) -> Segments:
    """Return the segments of a record, of whose classes ``things`` has one mark each; all else is void.

    Regions are segments; of pixels that only the label map names, those of a thing are a crowd.

    Raises:
        DataError: there are neither masks nor a label map, masks overlap, or a label has no class.
    """
    try:
        found = list(record_segments(record, things))
        places = torch.full(segment_size(record), IGNORE)
    except InputError as error:
        raise DataError(f"{error} It cannot be compared with segments.") from error
    for number, segment in enumerate(found):
        places[segment.mask] = number
    return Segments(
        places,
        torch.tensor([segment.label for segment in found], dtype=torch.long),
        torch.tensor([segment.crowd for segment in found], dtype=torch.bool),
    )
