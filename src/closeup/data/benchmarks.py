"""The benchmarks of fine-grained matching that a line of text names: FG-OVD's files, or the world."""

from __future__ import annotations

from pathlib import Path

from closeup.data.fgovd import BENCHMARKS, find_benchmarks
from closeup.data.record import Reader
from closeup.data.registry import open_reader
from closeup.data.spec import split_spec
from closeup.data.world.fine_grained import FineGrainedWorld, every_benchmark
from closeup.data.world.world import World
from closeup.errors import DataError, InputError


def open_benchmarks(line: str) -> dict[str, Reader]:
    """Open the benchmarks of a line, by name in the order of FG-OVD's paper.

    ``fgovd:FOLDER`` has those whose files the folder holds, with ``?split=NAME`` that one alone; a bare folder or json
    file is taken for FG-OVD's. ``world`` has all eight, with ``?negatives=NAME`` that one.

    Raises:
        InputError: the line is of another kind, or one of its options is unknown.
        DataError: files are missing, or do not hold what they should.
    """
    kind, place, options = split_spec(line)
    if not kind and (place != "world" or Path(place).exists()):
        line, kind = f"fgovd:{line}", "fgovd"
        _, place, options = split_spec(line)
    if kind == "fgovd":
        path = Path(place).expanduser()
        if path.suffix == ".json" and not path.is_file():
            raise DataError(f"{path}: no such file. Give one of FG-OVD's, or the folder that they are in.")
        if path.is_file():
            return {path.stem: open_reader(line)}
        if "split" in options or "annotations" in options:
            name = Path(options.get("annotations", options.get("split", ""))).stem
            return {name: open_reader(line)}
        return {name: open_reader(line, name) for name in find_benchmarks(path)}
    reader = open_reader(line)
    if isinstance(reader, FineGrainedWorld):
        return {reader.benchmark: reader}
    if isinstance(reader, World):
        return dict(every_benchmark(reader))
    raise InputError(
        f"{line!r} describes no regions with captions that are wrong in detail. Give fgovd:FOLDER with some of"
        f" {', '.join(BENCHMARKS)}, one such json file, or world."
    )
