"""The verb ``negatives``: captions that are wrong in a known way, for regions that have a right one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from tyro.conf import Positional

from closeup._types import ImageLike
from closeup.cli.fields import Flag, Maybe
from closeup.cli.files import check_folder, track
from closeup.cli.output import show, show_json, table
from closeup.data.fgovd import BENCHMARKS, FgOvd
from closeup.data.lexicon import FG_OVD, Lexicon
from closeup.data.negatives import COUNT, hard_negatives, other_captions
from closeup.data.record import Description, Reader, Record
from closeup.data.region_captions import open_described
from closeup.data.registry import open_reader
from closeup.data.world.fine_grained import FineGrainedWorld
from closeup.data.world.lexicon import WORLD
from closeup.data.world.world import World
from closeup.data.write_fgovd import DescribedRegions
from closeup.data.write_pictures import write_picture
from closeup.errors import DataError, InputError

Change: TypeAlias = Literal["trivial", "3", "2", "1", "color", "material", "pattern", "transparency"]

FILES: dict[Change, str] = {
    "trivial": "shuffle_negatives",
    "3": "3_attributes",
    "2": "2_attributes",
    "1": "1_attributes",
    "color": "color",
    "material": "material",
    "pattern": "pattern",
    "transparency": "transparency",
}
"""The benchmark file of FG-OVD that each change makes."""

LEXICONS: dict[str, Lexicon] = {"fgovd": FG_OVD, "world": WORLD}


@dataclass(frozen=True)
class Options:
    """Write hard negatives: captions like a region's own in which one, two or three attribute words are wrong.

    Colours, materials, patterns and transparency are found in the captions and replaced by values that are a clear
    mistake (never a near colour). What is written has FG-OVD's form, a file a change, named as FG-OVD names them: for
    training a matcher, or for asking whether a CLIP can tell the right caption from the wrong ones.

        closeup negatives refcoco_regions.json --out negatives/
        closeup negatives fgovd:FG-OVD/benchmarks?split=3_attributes --changes 1 2 --out negatives/
        closeup negatives world?count=500 --split train --changes 1 trivial --out world-negatives/
    """

    source: Positional[str]
    """A json file in COCO's form whose annotations have a "bbox" and a "caption", an FG-OVD file, a line such as
    "fgovd:FOLDER?split=1_attributes", or "world"."""

    out: Path
    """The folder for the files; drawn pictures are written into images/ in it, others are only named."""

    changes: tuple[Change, ...] = tuple(FILES)
    """What is wrong: a number of attributes, one of a family, or all of it ("trivial": captions of other regions)."""

    count: int = COUNT
    """The most wrong captions of a region."""

    seed: int = 0
    """Another seed draws other ones."""

    lexicon: Maybe[Literal["fgovd", "world"]] = None
    """Whose attribute words are looked for: FG-OVD's, or those of the embedded world (which it has by default)."""

    split: Maybe[str] = None
    """The split of the world, or the FG-OVD file in a folder."""

    json: Flag = False
    """Print one json document with the files and their counts."""


def run(options: Options) -> int:
    """Read the regions, write a file a change."""
    if options.count < 1 or options.seed < 0:
        raise InputError(
            f"--count {options.count} --seed {options.seed}: give at least one caption, and no negative seed."
        )
    if not options.changes:
        raise InputError(f"--changes is empty. Give some of {', '.join(FILES)}.")
    check_folder(options.out)
    reader = _open(options.source, options.split)
    paths = {change: options.out / f"{FILES[change]}.json" for change in dict.fromkeys(options.changes)}
    if isinstance(reader, FgOvd):
        _check_apart(reader.path, list(paths.values()))
    lexicon = LEXICONS[options.lexicon or ("world" if isinstance(reader, FineGrainedWorld) else "fgovd")]
    gathered = DescribedRegions()
    for index in track(range(len(reader)), "reading"):
        record = reader[index]
        if record.count:
            gathered.add(record, _name(record, record.image, options.out / "images"))
    described = {change: _describe(gathered.rights, FILES[change], lexicon, options) for change in paths}
    if not any(each.wrong for descriptions in described.values() for each in descriptions):
        raise DataError(
            f"{options.source}: none of its {len(gathered.rights)} captions names attributes enough for --changes"
            f" {' '.join(paths)}. Ask for fewer, or for another --lexicon."
        )
    rows = [_row(path, len(gathered.rights), gathered.write(path, described[change])) for change, path in paths.items()]
    lines = [f"fgovd:{options.out}?split={FILES[change]}" for change in paths]
    if options.json:
        show_json({"files": rows, "read_as": lines, "written": list(paths.values())})
        return 0
    show(
        table(["file", "benchmark", "regions", "left out"], [list(row.values()) for row in rows]),
        "Left out are regions whose captions name too few attributes.",
        f"Written: {len(rows)} files below {options.out}",
        f"Read one with --data '{lines[0]}'; '&images=FOLDER' after it says where the pictures are.",
    )
    return 0


def _open(source: str, split: str | None) -> Reader:
    path = Path(source).expanduser()
    if path.is_file() or (path.suffix.lower() == ".json" and ":" not in source):
        if split is not None:
            raise InputError(f"--split {split}: a json file has no splits. Leave it out.")
        return open_described(path)
    reader = open_reader(source, split)
    if isinstance(reader, World):
        return FineGrainedWorld(reader, "1_attributes")
    if isinstance(reader, FineGrainedWorld):
        return reader
    if isinstance(reader, FgOvd):
        return FgOvd(reader.path)  # its pictures are not looked at, and need not be there
    raise InputError(
        f"{source}: its regions have no captions. Give a json file whose annotations have a 'caption', an FG-OVD file,"
        " a line such as fgovd:FOLDER?split=1_attributes, or world."
    )


def _check_apart(source: Path, written: Sequence[Path]) -> None:
    if source.resolve() in [path.resolve() for path in written]:
        raise InputError(
            f"--out {source.parent}: this would write over {source}, which is read. Choose another folder."
        )


def _name(record: Record, image: ImageLike, folder: Path) -> str:
    return image.as_posix() if isinstance(image, Path) else write_picture(record, folder)


def _describe(rights: Sequence[str], name: str, lexicon: Lexicon, options: Options) -> list[Description]:
    """Return a description for each right caption; equal ones have equal wrong captions."""
    pool = sorted(set(rights))
    changes, number = BENCHMARKS[name].changes, list(BENCHMARKS).index(name)
    described: dict[str, Description] = {}
    for place, right in enumerate(pool):
        rng = np.random.default_rng([options.seed, number, place])
        wrong = (
            other_captions(right, pool, rng, options.count)
            if changes is None
            else hard_negatives(right, lexicon, rng, changes=changes, count=options.count)
        )
        described[right] = Description(right, wrong)
    return [described[right] for right in rights]


def _row(path: Path, regions: int, written: int) -> dict[str, str | int]:
    return {
        "file": path.name,
        "benchmark": BENCHMARKS[path.stem].title,
        "regions": written,
        "left_out": regions - written,
    }
