"""The classes of the segmentation sets by name, each with its words, in the order of their labels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from closeup.errors import InputError, suggest

CLASS_LISTS = (
    "ade20k-150",
    "ade20k-847",
    "cityscapes-19",
    "coco-stuff-171",
    "pascal-context-59",
    "pascal-context-459",
    "voc-20",
)
"""The lists that ship; each file says where it is from."""


@cache
def class_words(name: str) -> tuple[tuple[str, ...], ...]:
    """Return the words of every class of a list, in the data set's own order and spelling.

    Raises:
        InputError: there is no such list.
    """
    if name not in CLASS_LISTS:
        raise InputError(f"Unknown list of classes {name!r}. {suggest(name, CLASS_LISTS)}")
    return tuple(map(tuple, word_rows(read_list(name))))


def class_names(name: str) -> tuple[str, ...]:
    """Return one word for each class of a list, no two alike; InputError where there is no such list."""
    return distinct_names(class_words(name))


def distinct_names(rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return the first word of each row that no other row is called by; rows of one word choose first.

    ADE20K's full list has three bags: "bag", "bag, traveling bag, ..." and "bag, handbag, ...". The latter become
    "traveling bag" and "handbag". A row without a word of its own is called by all of them, joined by commas.
    """
    taken = {row[0] for row in rows if len(row) == 1}
    names: list[str] = []
    for row in rows:
        name = row[0] if len(row) == 1 else next((word for word in row if word not in taken), ", ".join(row))
        taken.add(name)
        names.append(name)
    return tuple(names)


def word_rows(text: str) -> list[list[str]]:
    """Return the words of each line ``name | synonym | synonym``; lines that are empty or start with # are skipped."""
    stripped = [line.strip() for line in text.split("\n")]
    kept = [line for line in stripped if line.strip("| \t") and not line.startswith("#")]
    return [[word.strip() for word in line.split("|") if word.strip()] for line in kept]


def read_list(name: str) -> str:
    """Return the text of a file of this name that ships with the lists."""
    return files("closeup.data").joinpath(f"names/{name}.txt").read_text("utf-8")
