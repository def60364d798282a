"""The ordered names that regions are compared with, their synonyms, and which of them are novel."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from closeup.data.class_lists import CLASS_LISTS, class_words, distinct_names
from closeup.errors import InputError, suggest
from closeup.text.files import Listed, read_categories, read_names

_JOINED = "-joined"

NAMED = (*CLASS_LISTS, "ade20k-150-joined", "ade20k-847-joined")
"""The vocabularies that ship: the classes of segmentation sets."""


@dataclass(frozen=True, init=False, repr=False, slots=True)
class Vocabulary:
    """An ordered, immutable list of names; a label is a position in it.

    A name scores as its best synonym does, and is always the first of its own synonyms. One synonym may
    belong to several names ("screen" in ADE20K); two names may not be equal, not even up to case.
    ``novel`` tells which names no training labels exist for; it is None where nobody said.
    """

    names: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...]
    novel: tuple[bool, ...] | None

    def __init__(
        self,
        names: Iterable[str],
        *,
        synonyms: Mapping[str, Sequence[str]] | None = None,
        base: Collection[str] | None = None,
        novel: Collection[str] | None = None,
    ) -> None:
        """Check and keep the names; at most one of ``base`` and ``novel`` lists some of them, the rest are the other.

        InputError names what is empty, twice there or unknown, with its positions counted from 0.
        """
        if isinstance(names, str):
            raise InputError(f'names is the single string {names!r}; write ["{names}"] or Vocabulary.parse(...).')
        if not isinstance(names, Iterable):
            raise InputError(f"names is {names!r} ({type(names).__name__}); give a list of strings.")
        kept = _check_names(names)
        object.__setattr__(self, "names", kept)
        object.__setattr__(self, "synonyms", _check_synonyms(kept, synonyms or {}))
        object.__setattr__(self, "novel", _check_marks(kept, base, novel))

    @classmethod
    def parse(cls, text: str) -> Vocabulary:
        """Read names separated by commas, as on a command line; a name that holds a comma needs a file."""
        return cls(text.split(","))

    @classmethod
    def named(cls, name: str) -> Vocabulary:
        """Return the classes of a segmentation set by name, one of `NAMED`, in the order of its labels.

        ``ade20k-847`` has a word for each class with all of its words as synonyms. ``ade20k-847-joined`` has one text
        for each class, all of its words with commas between them, as OVSeg reads them. InputError: there is no such
        list.
        """
        if name not in NAMED:
            raise InputError(f"Unknown vocabulary {name!r}. {suggest(name, NAMED)}")
        rows = class_words(name.removesuffix(_JOINED))
        if name.endswith(_JOINED):
            return cls([", ".join(row) for row in rows])
        names = distinct_names(rows)
        return cls(names, synonyms=dict(zip(names, rows, strict=True)))

    @classmethod
    def from_file(cls, path: str | Path) -> Vocabulary:
        """Read a text file, ADE20K's objectInfo table or, by its ending, json; DataError if it is none of them.

        A text file is UTF-8 with one name a line; ``|`` separates a name from its synonyms, lines that start
        with ``#`` and empty lines are skipped.
        """
        return cls._from_listed(read_names(Path(path)))

    @classmethod
    def from_json(cls, path: str | Path) -> Vocabulary:
        """Read a json list of names or categories, or an annotation file with ``categories``; DataError otherwise.

        COCO instances and panoptic, and LVIS: names are in the order of ``id``, and LVIS's rare categories are
        novel, as in ViLD.
        """
        return cls._from_listed(read_categories(Path(path)))

    @classmethod
    def _from_listed(cls, listed: Listed) -> Vocabulary:
        synonyms = dict(zip(listed.names, listed.synonyms, strict=True))
        return cls(listed.names, synonyms=synonyms, novel=listed.novel)

    @property
    def base(self) -> tuple[bool, ...] | None:
        """Which names training labels exist for; None where nobody said."""
        return None if self.novel is None else tuple(not mark for mark in self.novel)

    @property
    def hash(self) -> str:
        """SHA-256 of the names, synonyms and marks in their order."""
        content = json.dumps([self.names, self.synonyms, self.novel], separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()

    def index(self, name: str) -> int:
        """Return the position of a name, up to case; InputError suggests the near ones."""
        folded = _fold(name)
        for position, known in enumerate(self.names):
            if _fold(known) == folded:
                return position
        raise InputError(f"The vocabulary has no name {name!r}. {suggest(name, self.names)}")

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _fold(name) in map(_fold, self.names)

    def __getitem__(self, position: int) -> str:
        return self.names[position]

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self.names[:5])) + (", ..." if len(self) > 5 else "")
        return f"Vocabulary({len(self)} names: {shown})"


def _fold(name: str) -> str:
    return name.strip().casefold()


def _check_names(names: Iterable[str]) -> tuple[str, ...]:
    listed = list(names)
    if not listed:
        raise InputError("A vocabulary needs at least one name; none was given.")
    first: dict[str, int] = {}
    for position, name in enumerate(listed):
        if not isinstance(name, str):
            raise InputError(f"Name {position} is {name!r} ({type(name).__name__}); names are strings.")
        if not name.strip():
            raise InputError(f"Name {position} is empty ({name!r}); leave it out or write a word.")
        if _fold(name) in first:
            other = first[_fold(name)]
            raise InputError(
                f"Names {other} and {position} are the same: {listed[other]!r} and {name!r}. "
                "Keep one of them, or make one a synonym of the other."
            )
        first[_fold(name)] = position
    return tuple(name.strip() for name in listed)


def _check_synonyms(names: tuple[str, ...], given: Mapping[str, Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    for name, words in given.items():
        if name.strip() not in names:
            raise InputError(f"Synonyms are given for {name!r}, which is no name. {suggest(name, names)}")
        if isinstance(words, str):
            raise InputError(f"The synonyms of {name!r} are the single string {words!r}; write a list of strings.")
        for position, word in enumerate(words):
            if not word.strip():
                raise InputError(f"Synonym {position} of {name!r} is empty ({word!r}); leave it out.")
    listed = {name.strip(): words for name, words in given.items()}
    return tuple(_unique([name, *listed.get(name, ())]) for name in names)


def _unique(words: Iterable[str]) -> tuple[str, ...]:
    kept: dict[str, str] = {}
    for word in words:
        kept.setdefault(_fold(word), word.strip())
    return tuple(kept.values())


def _check_marks(
    names: tuple[str, ...], base: Collection[str] | None, novel: Collection[str] | None
) -> tuple[bool, ...] | None:
    if base is not None and novel is not None:
        raise InputError("Both base and novel names are given; give one, the rest are the other.")
    marked = base if base is not None else novel
    if marked is None:
        return None
    folded = {_fold(name) for name in names}
    for name in marked:
        if _fold(name) not in folded:
            kind = "novel" if base is None else "base"
            raise InputError(f"{name!r} is marked {kind} but is no name. {suggest(name, names)}")
    chosen = {_fold(name) for name in marked}
    return tuple((_fold(name) in chosen) == (base is None) for name in names)
