"""A dataclass from the words of a command line."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import tyro
from tyro.conf import DisallowNone, FlagCreatePairsOff, PositionalMetavarFromFieldName

from closeup.errors import InputError

_FRAME = "╭╮╰╯│─ "
_RULE = "────"


def parse(options: Any, prog: str, arguments: Sequence[str]) -> Any:  # noqa: ANN401 - any dataclass, or several
    """Build the options of a verb.

    Raises:
        InputError: for a command line that does not fit them.
        SystemExit: help was asked for, and shown.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                options,
                prog=prog,
                args=list(arguments),
                config=(DisallowNone, FlagCreatePairsOff, PositionalMetavarFromFieldName),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise InputError(f"{_one_line(complaint.getvalue())} More: {prog} --help.") from None


def _one_line(box: str) -> str:
    """Return the message of tyro's framed complaint: what stands above the first rule, the title left out."""
    rows = [row for row in box.splitlines() if row.strip()]
    first = next((i for i, row in enumerate(rows) if row.startswith("╭")), -1) + 1
    last = next((i for i, row in enumerate(rows) if i >= first and _RULE in row), len(rows))
    text = " ".join(row.strip(_FRAME) for row in rows[first:last])
    return text.partition(" Got errors:")[0].strip() or "The command line cannot be read."
