"""An album in which some pictures may be broken: the next good one stands in, so that no training dies of one file."""

from __future__ import annotations

import warnings
from dataclasses import replace

from closeup.data.record import Reader, Record
from closeup.data.registry import open_reader
from closeup.data.spec import split_spec
from closeup.errors import DataError, ImageError


def open_album(line: str, split: str | None = None) -> Readable:
    """Open a data set to train on, at ``train`` unless its line or ``split`` says otherwise; broken pictures left out.

    Raises:
        InputError: as ``open_reader`` does.
        DataError: as ``open_reader`` does.
    """
    return Readable(open_train(line, split))


def open_train(line: str, split: str | None = None) -> Reader:
    """Open a data set at ``train`` unless its line or ``split`` says otherwise.

    Raises:
        InputError: as ``open_reader`` does.
        DataError: as ``open_reader`` does.
    """
    told = "split" in split_spec(line)[2]
    return open_reader(line, split or (None if told else "train"))


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
