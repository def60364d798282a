"""Sources of pictures with captions, by position."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import PIL.Image

from closeup.data.record import Reader
from closeup.errors import DataError
from closeup.recipes.order import visited


@runtime_checkable
class Captioned(Protocol):
    """An endless source, such as ``WorldStream`` or ``ReaderStream``."""

    def __getitem__(self, index: int, /) -> tuple[PIL.Image.Image, str]:
        """Return picture number ``index`` and one caption."""
        ...


class ReaderStream:
    """Walks through any reader with captions, in a new order every epoch, one random caption a visit.

    Raises:
        DataError: the reader is empty, or a record has no caption.
    """

    def __init__(self, reader: Reader, *, seed: int = 0) -> None:
        if len(reader) == 0:
            raise DataError("The data set is empty. Pre-training needs pictures with captions.")
        self._reader = reader
        self._seed = seed

    def __getitem__(self, index: int) -> tuple[PIL.Image.Image, str]:
        record = self._reader[visited(index, len(self._reader), self._seed)]
        if not record.captions:
            raise DataError(f"Record {record.id!r} has no caption. Pre-training needs a data set with captions.")
        rng = np.random.default_rng([self._seed, index])
        return record.load(), record.captions[int(rng.integers(len(record.captions)))]
