"""One reproduction from its name to a json file, a page and pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import PIL.Image

from closeup.data.atomic import replacing
from closeup.errors import InputError, suggest
from closeup.reproduce.measure import Counter, Measurements, Scale
from closeup.reproduce.page import page
from closeup.reproduce.result import Picture, Result, Row, Stamp, Table, read_tables

Pictures: TypeAlias = Mapping[str, tuple[PIL.Image.Image, str]]
"""Pictures of a table by the end of their file's name, each with a sentence."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a reproduction is wanted.

    ``tables`` are the keys to measure (None: all that can be had). ``train`` makes the models again in ``work``,
    resumable; else those that ship are measured, and tables that ask for other models are left as they were found.
    ``quick`` goes the same way with a handful of pictures, to see that it works, in a folder of its own below ``work``.
    """

    train: bool = False
    quick: bool = False
    tables: tuple[str, ...] | None = None
    work: Path = Path("runs/reproduce")
    camvid: Path | None = None
    """Where CamVid is, for the tables that are measured on it."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured for one table."""

    rows: Sequence[Row]
    findings: Sequence[str]
    pictures: Pictures


@dataclass(frozen=True, slots=True)
class Part:
    """A table that can be measured: its words, and the function that measures it; ``trained`` ones need ``train``.

    ``about`` is a format string, so that it tells the ``scale`` that was really measured on.
    """

    key: str
    title: str
    about: str
    trained: bool
    measure: Callable[[Wanted, Measurements], Found]
    camvid: bool = False
    """Whether it is measured on CamVid, and left out where that is not given."""


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A paper's tables, and on how much they are measured, in earnest and quickly."""

    name: str
    title: str
    paper: str
    parts: tuple[Part, ...]
    scale: Scale
    quick: Scale

    def chosen(self, wanted: Wanted) -> list[Part]:
        """Return the tables to measure; InputError for an unknown one, or one that needs training without it."""
        keys = [part.key for part in self.parts]
        for key in wanted.tables or ():
            if key not in keys:
                raise InputError(f"Unknown table {key!r} of {self.name!r}. {suggest(key, keys)}")
        parts = [part for part in self.parts if wanted.tables is None or part.key in wanted.tables]
        if wanted.camvid is None:
            absent = [part.key for part in parts if part.camvid]
            if wanted.tables is not None and absent:
                raise InputError(f"The table {absent[0]!r} is measured on CamVid. Say where it is, with --camvid.")
            parts = [part for part in parts if not part.camvid]
        if wanted.train:
            return parts
        lacking = [part.key for part in parts if part.trained]
        if wanted.tables is not None and lacking:
            raise InputError(f"No weights ship for {', '.join(lacking)}: its models are made with --train.")
        return [part for part in parts if not part.trained]


def reproduce(
    what: Reproduction, wanted: Wanted, out: Path, stamp: Callable[[], Stamp], counter: Counter
) -> tuple[Result, list[Path]]:
    """Measure, and write ``results/NAME.json`` and ``docs/results/NAME.md`` with its pictures below ``out``.

    A table is written as soon as it is measured; those that are not measured now are kept from the file that is
    there. Returns the result and the files written.

    Raises:
        InputError: unknown tables, or some that need training without it.
        DataError: the file that is there is another one.
        ModelError: a model that should ship is missing.
    """
    parts = what.chosen(wanted)
    if wanted.quick:
        wanted = replace(wanted, work=wanted.work / "quick")
    name = f"{what.name}-quick" if wanted.quick else what.name
    file, folder = out / "results" / f"{name}.json", out / "docs" / "results"
    order = tuple(part.key for part in what.parts)
    result = Result(name, what.title, what.paper, order).with_tables(read_tables(file))
    measured = Measurements(what.quick if wanted.quick else what.scale, counter)
    written: list[Path] = []
    for part in parts:
        found = part.measure(wanted, measured)
        pictures = []
        folder.mkdir(parents=True, exist_ok=True)
        for ending, (picture, caption) in found.pictures.items():
            path = folder / f"{name}-{ending}.png"
            with replacing(path) as temporary:
                picture.save(temporary, format="png")
            written.append(path)
            pictures.append(Picture(path.name, caption))
        about = part.about.format(scale=measured.scale)
        table = Table(part.key, part.title, about, tuple(found.rows), stamp(), tuple(found.findings), tuple(pictures))
        result = result.with_tables([table])
        result.save(file)
        _write(folder / f"{name}.md", page(result))
    return result, [file, folder / f"{name}.md", *written]


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
