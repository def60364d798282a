"""What verbs print: tables for people, one json document for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console, RenderableType
from rich.table import Table

PLAIN_WIDTH = 160
"""Columns of tables that go to a file or another program."""


def show(*things: RenderableType) -> None:
    """Print tables and lines on standard output."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    with console.capture() as capture:
        for thing in things:
            console.print(thing, markup=False, soft_wrap=isinstance(thing, str))
    # Written here and not by rich, which would end the program with code 1 where a reader has left.
    sys.stdout.write(capture.get())


def show_json(document: object) -> None:
    """Print one json document on standard output; a number that is not finite becomes null."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(as_json(document), indent=2, ensure_ascii=not unicode, allow_nan=False))


def as_json(value: object) -> object:
    """Return a value in the types of json: paths as text, tuples as lists, numbers that are not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Return a table; numbers stand on the right, fractions with four decimals; none for NaN."""
    drawn = Table(box=None, pad_edge=False)
    listed = [list(row) for row in rows]
    for index, column in enumerate(columns):
        numeric = bool(listed) and all(isinstance(row[index], (int, float)) for row in listed)
        drawn.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in listed:
        drawn.add_row(*map(_cell, row))
    return drawn


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.4f}"
    return "" if value is None else str(value)
