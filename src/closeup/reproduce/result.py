"""What a reproduction found: tables of rows, each with our figures, the paper's, and what made them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from closeup.data.atomic import write_json
from closeup.errors import DataError


@dataclass(frozen=True, slots=True)
class Paper:
    """A figure as a paper gives it, and where it stands."""

    value: float
    source: str


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one thing: ``values`` has one number per seed, in the paper's unit (percent, mostly)."""

    name: str
    """What was measured, as the paper's row says it."""
    metric: str
    """The column."""
    values: tuple[float, ...]
    paper: Paper | None = None
    digits: int = 1
    """Digits after the point."""

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return mean(self.values)

    @property
    def spread(self) -> float | None:
        """The sample standard deviation over seeds; None for one seed."""
        return stdev(self.values) if len(self.values) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON."""
        here = {"mean": self.mean, "spread": self.spread, "seeds": len(self.values), "values": list(self.values)}
        return {
            "name": self.name,
            "metric": self.metric,
            "here": here,
            **({} if self.digits == 1 else {"digits": self.digits}),
            "paper": None if self.paper is None else asdict(self.paper),
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Row:
        """Return the row that ``to_dict`` wrote."""
        paper = None if stored["paper"] is None else Paper(**stored["paper"])
        values = tuple(stored["here"]["values"])
        return cls(stored["name"], stored["metric"], values, paper, stored.get("digits", 1))


@dataclass(frozen=True, slots=True)
class Stamp:
    """What made a table: the command, the commit, the versions, the machine and the day."""

    command: str
    commit: str | None
    versions: dict[str, str]
    machine: str
    date: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture beside the page, by its file name, with a sentence about it."""

    file: str
    caption: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows that belong together; ``findings`` are sentences drawn from the figures by rule, whatever they say."""

    key: str
    title: str
    about: str
    rows: tuple[Row, ...]
    stamp: Stamp
    findings: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON."""
        return {
            "key": self.key,
            "title": self.title,
            "about": self.about,
            "rows": [row.to_dict() for row in self.rows],
            "findings": list(self.findings),
            "pictures": [asdict(picture) for picture in self.pictures],
            "stamp": asdict(self.stamp),
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Table:
        """Return the table that ``to_dict`` wrote."""
        return cls(
            stored["key"],
            stored["title"],
            stored["about"],
            tuple(Row.from_dict(row) for row in stored["rows"]),
            Stamp(**stored["stamp"]),
            tuple(stored["findings"]),
            tuple(Picture(**picture) for picture in stored["pictures"]),
        )


@dataclass(frozen=True, slots=True)
class Result:
    """All tables of one reproduction, in the order of ``order`` where they are there."""

    name: str
    title: str
    paper: str
    order: tuple[str, ...]
    tables: tuple[Table, ...] = field(default=())

    def with_tables(self, tables: Sequence[Table]) -> Result:
        """Return the same with some tables new or replaced; the others keep the stamp of what made them."""
        known = {table.key: table for table in (*self.tables, *tables)}
        kept = tuple(known[key] for key in self.order if key in known)
        return Result(self.name, self.title, self.paper, self.order, kept)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON."""
        return {
            "name": self.name,
            "title": self.title,
            "paper": self.paper,
            "tables": [table.to_dict() for table in self.tables],
        }

    def save(self, path: Path) -> Path:
        """Write the JSON, whole or not at all."""
        write_json(path, self.to_dict())
        return path


def read_tables(path: Path) -> tuple[Table, ...]:
    """Return the tables that an earlier run wrote, none where there is no file; DataError for another file."""
    if not path.is_file():
        return ()
    try:
        return tuple(Table.from_dict(table) for table in json.loads(path.read_text(encoding="utf-8"))["tables"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not the results of a reproduction ({error!r}). Choose another --out, or move the file away."
        ) from error
