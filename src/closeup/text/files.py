"""Names, synonyms and novel marks as files hold them: plain text, category json, ADE20K's objectInfo tables."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from closeup.data.class_lists import class_words, word_rows
from closeup.errors import DataError


class Listed(NamedTuple):
    """What a file lists: names in order, the synonyms of each, and the novel names if the file tells."""

    names: list[str]
    synonyms: list[list[str]]
    novel: list[str] | None


_COUNT = re.compile(r",[0-9]+(?=\s*$)", re.MULTILINE)


def read_names(path: Path) -> Listed:
    """Read a file by its content and ending; DataError tells why it cannot be read."""
    if path.suffix.lower() == ".json":
        return read_categories(path)
    text = _read_text(path)
    if path.suffix.lower() == ".csv":  # counts of concepts, as ``closeup concepts`` writes them
        text = _COUNT.sub("", text)
    listed = parse_object_info(text, path) if text.startswith(("Idx,", "Idx\t")) else parse_lines(text)
    return _check_any(listed, path)


def read_categories(path: Path) -> Listed:
    """Read a json file, whatever its ending; DataError tells why it cannot be read."""
    try:
        content = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not json: {error}.") from error
    return _check_any(parse_categories(content, path), path)


def parse_lines(text: str) -> Listed:
    """Read ``name | synonym | synonym`` lines; lines that start with ``#`` and empty lines are skipped."""
    rows = word_rows(text)
    return Listed([row[0] for row in rows], rows, None)


def parse_categories(content: Any, path: Path) -> Listed:  # noqa: ANN401 - json of an unknown form
    """Read a list of names or categories, or an annotation file that has ``categories``, in the order of ``id``.

    LVIS's ``synonyms`` are kept, and its rare categories (``frequency`` "r") are novel.
    """
    rows = content.get("categories") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        held = f"the keys {sorted(content)[:8]}" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise DataError(f"{path} holds {held}; wanted a list of names, or an object with 'categories'.")
    if all(isinstance(row, str) for row in rows):
        return Listed(list(rows), [[row] for row in rows], None)
    for position, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("name"), str):
            raise DataError(f"{path}: category {position} is {row!r}; wanted an object with a 'name'.")
    ordered = sorted(rows, key=lambda row: row["id"]) if all("id" in row for row in rows) else rows
    names = [row["name"] for row in ordered]
    synonyms = [list(row.get("synonyms") or [row["name"]]) for row in ordered]
    known = bool(ordered) and all("frequency" in row for row in ordered)
    novel = [row["name"] for row in ordered if row["frequency"] == "r"] if known else None
    return Listed(names, synonyms, novel)


def parse_object_info(text: str, path: Path) -> Listed:
    """Read ADE20K's ``objectInfo150`` as text (tabs) or csv, whose last column holds the synonyms.

    The published csv writes ``;`` for both the comma between synonyms and the space inside one, so that
    "screen door, screen" became "screen;door;screen". Its rows are matched by their words with the text form.
    """
    lines = text.strip().split("\n")
    delimiter = "\t" if "\t" in lines[0] else ","
    header, *rows = csv.reader(lines, delimiter=delimiter)
    if "Name" not in header:
        raise DataError(f"{path} starts like ADE20K's objectInfo but has no column 'Name': {header}.")
    column = header.index("Name")
    synonyms = []
    for number, row in enumerate(rows, start=2):
        if len(row) <= column or not row[column].strip():
            raise DataError(f"{path}, line {number}: no name in {row!r}.")
        synonyms.append(_split_object(row[column]))
    return Listed([words[0] for words in synonyms], synonyms, None)


def _split_object(cell: str) -> list[str]:
    if ";" not in cell:
        return _words(cell, ",")
    return _ade20k_rows().get(tuple(cell.split(";"))) or _words(cell, ";")


@cache
def _ade20k_rows() -> dict[tuple[str, ...], list[str]]:
    return {tuple(" ".join(row).split(" ")): list(row) for row in class_words("ade20k-150")}


def _words(line: str, separator: str) -> list[str]:
    words: Sequence[str] = [word.strip() for word in line.split(separator)]
    return [word for word in words if word]


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def _check_any(listed: Listed, path: Path) -> Listed:
    if not listed.names:
        raise DataError(f"{path} lists no names; write one name a line, or give a json file with categories.")
    return listed
