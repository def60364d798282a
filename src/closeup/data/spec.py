"""A data set in one line of text: ``kind:path?option=value&option=value``."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from closeup.errors import DataError, InputError, suggest

DEFAULT_SPLIT = "val"


@dataclass(frozen=True)
class Spec:
    """What such a line says; ``coco-panoptic:/data/coco?split=train&crowd=keep`` has all parts.

    ``path`` is a folder, or an annotation file in it; option values that are paths are relative to the folder.
    """

    kind: str
    path: str
    split: str = DEFAULT_SPLIT
    options: Mapping[str, str] = field(default_factory=dict)
    layout: str = ""

    @property
    def root(self) -> Path:
        """The folder in which a data set lies, also where ``path`` names its annotation file."""
        path = Path(self.path).expanduser()
        if path.is_dir() or not path.suffix:
            return path
        return path.parent.parent if path.parent.name == "annotations" else path.parent

    def choice(self, option: str, choices: Collection[str]) -> str | None:
        """Return an option's value, one of ``choices``, or None where it is not given.

        Raises:
            InputError: another value is given.
        """
        value = self.options.get(option)
        if value is not None and value not in choices:
            raise InputError(f"{option}={value!r} in a data set of kind {self.kind}. {suggest(value, choices)}")
        return value

    def number(self, option: str, default: int) -> int:
        """Return an option as a whole number.

        Raises:
            InputError: it is not one.
        """
        value = self.options.get(option, str(default))
        try:
            return int(value)
        except ValueError:
            raise InputError(f"{option}={value!r} in a data set of kind {self.kind} is not a whole number.") from None

    def find(self, option: str, candidates: Sequence[str]) -> Path:
        """Return the path that an option gives, or the first of the candidates below the root that exists.

        Raises:
            DataError: neither exists; the message shows the layout that the kind expects.
        """
        given = self.options.get(option)
        tried = [given] if given is not None else list(candidates)
        for name in tried:
            path = self.root / Path(name).expanduser()
            if path.exists():
                return path
        where = self.root if self.root.exists() else f"{self.root} (which does not exist)"
        raise DataError(
            f"{self.kind} data: no {option} found; looked for {', '.join(tried)} below {where}. Expected:"
            f" {self.layout}. Or name the place: {self.kind}:{self.path}?{option}=PATH"
        )


def split_spec(text: str) -> tuple[str, str, dict[str, str]]:
    """Return kind, path and options of a line; the kind is empty where the line is a bare path.

    Raises:
        InputError: an option is not of the form name=value, or comes twice.
    """
    kind, colon, rest = text.partition(":")
    if not colon or "/" in kind or "\\" in kind or len(kind) == 1:  # a path, maybe one that starts with a drive
        kind, rest = "", text
    if not kind and Path(text).expanduser().exists():
        return "", text, {}
    path, _, query = rest.partition("?")
    if kind in ("", "folder") and "=" not in query:  # the question mark is one of a glob
        path, query = rest, ""
    options: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        name, equals, value = part.partition("=")
        if not equals or not value or name in options:
            raise InputError(f"{text!r}: {part!r} is not an option; write each once, as name=value joined by '&'.")
        options[name] = value
    return kind, path, options


def at_split(text: str, split: str) -> str:
    """Return the line of a data set at a split, whatever split the line named; InputError as ``split_spec``."""
    kind, path, options = split_spec(text)
    told = "&".join(f"{name}={value}" for name, value in {**options, "split": split}.items())
    return f"{kind}:{path}?{told}" if kind else f"{path}?{told}"


def read_numbers(text: str, options: Mapping[str, str], known: Collection[str]) -> dict[str, float]:
    """Return the options of a line as finite numbers.

    Raises:
        InputError: an option is none of the ``known``, or no number.
    """
    found: dict[str, float] = {}
    for name, value in options.items():
        if name not in known:
            raise InputError(
                f"Unknown option {name!r} in {text!r}. {suggest(name, known) if known else 'It has none.'}"
            )
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = math.nan
        if not math.isfinite(found[name]):
            raise InputError(f"{name}={value!r} in {text!r} is not a number.")
    return found
