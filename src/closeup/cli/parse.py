"""A dataclass from the words of a command line."""

from __future__ import annotations

import contextlib
import inspect
import io
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import tyro
from tyro.conf import DisallowNone, FlagCreatePairsOff, PositionalMetavarFromFieldName

from closeup.errors import InputError, suggest

HELP = frozenset({"-h", "--help"})

_FRAME = "╭╮╰╯│─ "
_RULE = "────"


def parse(options: type | Mapping[str, type], prog: str, arguments: Sequence[str]) -> Any:  # noqa: ANN401 - as asked for
    """Build the options of a verb, or of the one of its parts that the first argument names.

    Raises:
        InputError: for a command line that does not fit them.
        SystemExit: help was asked for, and shown.
    """
    if isinstance(options, Mapping):
        part = _part(options, prog, arguments)
        return parse(options[part], f"{prog} {part}", arguments[1:])
    if not HELP.isdisjoint(arguments):
        print(_description(options), end="\n\n")
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                options,
                prog=prog,
                description="",  # tyro would join the lines of ours
                args=list(arguments),
                config=(DisallowNone, FlagCreatePairsOff, PositionalMetavarFromFieldName),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise InputError(f"{_one_line(complaint.getvalue())} More: {prog} --help.") from None


def summaries(parts: Mapping[str, str]) -> str:
    """Return names and their summaries, one a line, for a help text."""
    width = max(map(len, parts))
    return "\n".join(f"  {name:<{width}}  {summary}" for name, summary in parts.items())


def _part(parts: Mapping[str, type], prog: str, arguments: Sequence[str]) -> str:
    name = arguments[0] if arguments else ""
    if name in HELP:
        told = {part: _doc(options).partition("\n")[0] for part, options in parts.items()}
        names = "|".join(parts)
        print(f"usage: {prog} {names} [OPTIONS]\n       {prog} {names} --help\n\n{summaries(told)}")
        raise SystemExit(0)
    if name not in parts:
        wrong = f"unknown part {name!r}. {suggest(name, parts)}" if name else f"give one of {', '.join(parts)}."
        raise InputError(f"{prog}: {wrong} More: {prog} --help.")
    return name


def _description(options: type) -> str:
    """Return the docstring, its paragraphs as wide as the terminal; the example commands stay as they are."""
    width = min(shutil.get_terminal_size().columns, 100)
    paragraphs = _doc(options).split("\n\n")
    return "\n\n".join(each if each.startswith(" ") else textwrap.fill(each, width) for each in paragraphs)


def _doc(options: type) -> str:
    return inspect.getdoc(options) or ""


def _one_line(box: str) -> str:
    """Return the message of tyro's framed complaint: what stands above the first rule, the title left out."""
    rows = [row for row in box.splitlines() if row.strip()]
    first = next((i for i, row in enumerate(rows) if row.startswith("╭")), -1) + 1
    last = next((i for i, row in enumerate(rows) if i >= first and _RULE in row), len(rows))
    text = " ".join(row.strip(_FRAME) for row in rows[first:last])
    return text.partition(" Got errors:")[0].strip() or "The command line cannot be read."
