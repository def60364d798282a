"""Sources of pictures with captions, by position."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
import PIL.Image
from jaxtyping import Int

from closeup.data.record import Reader
from closeup.errors import DataError


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
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def __getitem__(self, index: int) -> tuple[PIL.Image.Image, str]:
        epoch, offset = divmod(index, len(self._reader))
        record = self._reader[int(self._order(epoch)[offset])]
        if not record.captions:
            raise DataError(f"Record {record.id!r} has no caption. Pre-training needs a data set with captions.")
        rng = np.random.default_rng([self._seed, index])
        return record.load(), record.captions[int(rng.integers(len(record.captions)))]

    def _shuffled(self, epoch: int) -> Int[np.ndarray, " records"]:
        return np.random.default_rng([self._seed, 1, epoch]).permutation(len(self._reader))
