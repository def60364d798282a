"""An album in which some pictures may be broken: the next good one stands in, so that no training dies of one file."""

from __future__ import annotations

import warnings
from dataclasses import replace

from closeup.data.record import Reader, Record
from closeup.errors import DataError, ImageError


class Readable:
    """Another reader's records with their pictures decoded; for a broken one, a warning and the next that is not.

    Which record stands in depends on the number alone. Raises DataError where no picture of the reader can be used.
    """

    names: tuple[str, ...]
    things: tuple[bool, ...]
    novel: tuple[str, ...]

    def __init__(self, reader: Reader) -> None:
        self.names = reader.names
        self.things = reader.things
        self.novel = tuple(getattr(reader, "novel", ()))
        self._reader = reader

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int, /) -> Record:
        count = len(self._reader)
        for ahead in range(count):
            try:
                record = self._reader[(index + ahead) % count if ahead else index]
                return replace(record, image=record.load())
            except ImageError as error:
                warnings.warn(f"left out: {error}", stacklevel=2)
        raise DataError(f"None of the {count} pictures can be used.")
