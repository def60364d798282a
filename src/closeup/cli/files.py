"""Many photos in, files out: one that fails stops no other, and nothing is written by halves."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

import PIL.Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from closeup.data.atomic import replacing
from closeup.data.images import list_images
from closeup.errors import InputError

Result = TypeVar("Result")

Tell: TypeAlias = Callable[[int, int], object]
"""Told how many are done, and of how many."""

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
"""An output that ends so is a picture, any other a folder."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that could not be used, and why."""

    name: str
    reason: str


def find_photos(sources: Sequence[str]) -> tuple[list[Path], list[Failure]]:
    """Return the photos that files, folders and globs name, each once, and the sources that name none.

    Raises:
        InputError: there is no photo at all.
    """
    if not sources:
        raise InputError("No photos were given. Name files, folders or globs.")
    photos: list[Path] = []
    failures: list[Failure] = []
    for source in sources:
        try:
            photos += list_images(source)
        except InputError as error:
            failures.append(Failure(source, str(error)))
    if not photos:
        raise InputError(failures[0].reason)
    return list(dict.fromkeys(photos)), failures


def each(
    photos: Sequence[Path], work: Callable[[Path], Result], what: str
) -> tuple[list[tuple[Path, Result]], list[Failure]]:
    """Do the work on every photo, with a progress bar over many, and return the results and what failed.

    Raises:
        InputError: the only photo failed.
    """
    return each_in_parts(photos, lambda photo, _: work(photo), what, what)


def each_in_parts(
    photos: Sequence[Path], work: Callable[[Path, Tell], Result], what: str, parts: str
) -> tuple[list[tuple[Path, Result]], list[Failure]]:
    """Do as ``each`` does where a photo is work enough for a bar of its own, which its work moves.

    Raises:
        InputError: the only photo failed.
    """
    done: list[tuple[Path, Result]] = []
    failures: list[Failure] = []
    with counted(what, parts) as tell:
        for number, photo in enumerate(photos):
            tell(number, len(photos))
            try:
                done.append((photo, work(photo, tell.part)))
            except InputError as error:
                if len(photos) == 1:
                    raise
                failures.append(Failure(str(photo), str(error)))
        tell(len(photos), len(photos))
    return done, failures


def track(items: Sequence[Result], what: str) -> Iterator[Result]:
    """Yield the items, with a progress bar on a terminal's standard error: how many are done, and the time left."""
    with counted(what) as tell:
        for done, item in enumerate(items):
            tell(done, len(items))
            yield item
        tell(len(items), len(items))


class Bars:
    """A bar that is told how many are done, of how many; ``part`` is told the same of one of them, on a second bar."""

    def __init__(self, bar: Progress, what: str, parts: str) -> None:
        self._bar, self._whole = bar, bar.add_task(what, total=None)
        self._part = bar.add_task(parts, total=None, visible=False)

    def __call__(self, done: int, total: int) -> None:
        """Move the bar."""
        self._bar.update(self._whole, completed=done, total=total)

    def part(self, done: int, total: int) -> None:
        """Move the second bar, which is not shown before."""
        self._bar.update(self._part, completed=done, total=total, visible=True)


@contextmanager
def counted(what: str, parts: str = "") -> Iterator[Bars]:
    """Give bars that are told how many are done, of how many, and are drawn where anybody can see them."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield Bars(bar, what, parts)


def report(failures: Sequence[Failure], photos: int) -> int:
    """List what failed on standard error and return the exit code, 1 if anything did."""
    for failure in failures:
        reason = " ".join(failure.reason.split())
        print(f"closeup: failed: {reason if failure.name in reason else f'{failure.name}: {reason}'}", file=sys.stderr)
    if failures:
        print(f"closeup: {len(failures)} failed, {photos} done.", file=sys.stderr)
    return 1 if failures else 0


def output_names(photos: Sequence[Path]) -> dict[Path, Path]:
    """Return where each photo's results go, below the output folder and without a suffix.

    The path below the folder that all photos share; with the photo's own suffix where two would be the same.
    """
    shared = os.path.commonpath([photo.absolute().parent for photo in photos])
    below = {photo: photo.absolute().relative_to(shared) for photo in photos}
    counts = Counter(path.with_suffix("") for path in below.values())
    return {photo: path if counts[path.with_suffix("")] > 1 else path.with_suffix("") for photo, path in below.items()}


def check_folder(folder: Path, option: str = "--out") -> None:
    """Raise InputError unless files can be written into an option's folder, which need not exist; nothing is made."""
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise InputError(f"{option} {folder}: {existing} is a file. Choose a folder for the output.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{option} {folder}: {existing} cannot be written to. Choose another folder for the output.")


def check_report(path: Path) -> None:
    """Hold that a report can be written at ``--out``, else raise InputError."""
    if path.is_dir():
        raise InputError(f"--out {path}: this is a folder. Name a json file for the report.")
    check_folder(path.parent)


def check_picture(path: Path) -> None:
    """Raise InputError unless a picture can be written there."""
    if path.suffix.lower() not in PICTURES:
        raise InputError(f"--out {path}: a picture ends with {', '.join(PICTURES)}.")
    if path.is_dir():
        raise InputError(f"--out {path}: this is a folder. Name a file for the picture.")
    check_folder(path.parent)


def is_picture(path: Path) -> bool:
    """Tell whether an output is the name of one picture, and not a folder."""
    return path.suffix.lower() in PICTURES and not path.is_dir()


def save_picture(picture: PIL.Image.Image, path: Path) -> Path:
    """Write a picture, whole or not at all, and return its path."""
    with replacing(path) as temporary:
        picture.save(temporary)
    return path
