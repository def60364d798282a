"""The things of a data set: their labels, their words, and which of them are novel."""

from __future__ import annotations

from collections.abc import Sequence

from closeup.data.record import Reader
from closeup.errors import InputError, suggest


def thing_labels(reader: Reader) -> tuple[int, ...]:
    """Return the labels of things, which are all of them where a reader does not tell."""
    things = reader.things or (True,) * len(reader.names)
    return tuple(label for label, thing in enumerate(things) if thing)


def thing_names(reader: Reader) -> tuple[str, ...]:
    """Return the names of things, in the order of their labels."""
    return tuple(reader.names[label] for label in thing_labels(reader))


def novel_marks(reader: Reader, novel: Sequence[str] | None = None, *, grounds: bool = False) -> tuple[bool, ...]:
    """Return which things are novel: those named, in any case, or the reader's own where None are, if it has some.

    With ``grounds`` of all of the reader's names.

    Raises:
        InputError: a novel word is no thing of the reader, or with ``grounds`` none of its names.
    """
    words, what = (reader.names, "word") if grounds else (thing_names(reader), "thing")
    chosen: Sequence[str] = getattr(reader, "novel", ()) if novel is None else novel
    known, marked = {word.casefold() for word in words}, {name.strip().casefold() for name in chosen}
    for name in chosen:
        if name.strip().casefold() not in known:
            raise InputError(f"The novel word {name!r} is no {what} of the data set. {suggest(name, words)}")
    return tuple(word.casefold() in marked for word in words)
