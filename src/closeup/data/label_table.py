"""What the ids that a label map stores mean: a label, nothing that takes part, or a mistake."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int

from closeup._types import IGNORE, LabelMap
from closeup.errors import DataError

_STRANGE = -2


class LabelTable:
    """Turns stored ids into labels.

    ``labels`` has the label of every id that is expected, IGNORE for those that take no part; ``rest`` is the label of
    all other ids (None: there may be none, and one that is met is an error).

    Raises:
        DataError: an id is below 0.
    """

    def __init__(self, labels: Mapping[int, int], rest: int | None = None) -> None:
        if labels and min(labels) < 0:
            raise DataError(f"Stored ids count from 0, but {min(labels)} is among those that have a label.")
        # The last entry stands for all ids beyond.
        self._table = np.full(max(labels, default=-1) + 2, _STRANGE if rest is None else rest, dtype=np.int64)
        for stored, label in labels.items():
            self._table[stored] = label

    def translate(self, ids: Int[np.ndarray, "height width"], path: Path) -> LabelMap:
        """Return the label of every pixel.

        Raises:
            DataError: an id has no label; the message names ``path``, where the ids are from.
        """
        # As unsigned numbers negative ids are huge, and all beyond the table share its last entry.
        labels = self._table[np.minimum(ids.astype(np.uint64), len(self._table) - 1)]
        strange = np.unique(ids[labels == _STRANGE])
        if len(strange):
            ignored = np.flatnonzero(self._table == IGNORE).tolist()
            raise DataError(
                f"{path}: holds the ids {strange[:5].tolist()}, which are neither classes ({self._classes()}) nor"
                f" ignored ({ignored})."
            )
        return torch.from_numpy(labels)

    def _classes(self) -> str:
        stored = np.flatnonzero(self._table >= 0)
        if not len(stored):
            return "there are none"
        gaps = "" if len(stored) == stored[-1] - stored[0] + 1 else ", with gaps"
        return f"{stored[0]} to {stored[-1]}{gaps}"
