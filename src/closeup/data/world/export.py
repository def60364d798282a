"""Writes the world to disk in the forms of real data sets, so that the same readers read both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import MappingProxyType

from closeup.data.fgovd import BENCHMARKS
from closeup.data.record import Description, Record
from closeup.data.world.fine_grained import FineGrainedWorld
from closeup.data.world.world import World
from closeup.data.write_coco import write_coco_captions, write_coco_instances, write_coco_panoptic
from closeup.data.write_fgovd import DescribedRegions
from closeup.data.write_labelmaps import write_labelmaps
from closeup.data.write_pictures import write_picture
from closeup.errors import InputError, suggest

Progress = Callable[[Iterable[int]], Iterable[int]]
"""Wraps the scene numbers that are about to be drawn, for a progress bar."""


class _Scenes:
    """The records of a world one after the other, each drawn when it is needed."""

    def __init__(self, world: World, progress: Progress) -> None:
        self._world, self._progress = world, progress

    def __iter__(self) -> Iterator[Record]:
        return (self._world[index] for index in self._progress(range(len(self._world))))


def _export_coco(world: World, folder: Path, progress: Progress) -> None:
    """Write instances, captions and panoptic in the folders of COCO 2017; things alone are instances."""
    annotations = folder / "annotations"
    name = f"{world.split}2017"
    things = tuple(name for name, thing in zip(world.names, world.things, strict=True) if thing)
    scenes = _Scenes(world, progress)
    write_coco_panoptic(
        scenes,
        world.names,
        world.things,
        annotations / f"panoptic_{name}.json",
        annotations / f"panoptic_{name}",
        images=folder / name,
    )
    write_coco_instances(
        (_things_only(record, len(things)) for record in scenes), things, annotations / f"instances_{name}.json"
    )
    write_coco_captions(scenes, annotations / f"captions_{name}.json")


def _things_only(record: Record, count: int) -> Record:
    """Keep the regions whose label is one of the first ``count`` names, which are the things."""
    if record.labels is None or record.boxes is None or record.masks is None:
        return record
    kept = record.labels < count
    return Record(
        id=record.id,
        image=record.image,
        size=record.size,
        boxes=record.boxes[kept],
        masks=record.masks[kept],
        labels=record.labels[kept],
        captions=record.captions,
    )


def _export_ade20k(world: World, folder: Path, progress: Progress) -> None:
    """Write pictures and label maps in which 0 is unlabelled and classes count from 1, as ADE20K's do."""
    write_labelmaps(_Scenes(world, progress), world.names, folder / world.split, offset=1, ignore=0)


def _export_fgovd(world: World, folder: Path, progress: Progress) -> None:
    """Write ``images/`` and one json a benchmark; each scene is drawn once for all eight."""
    readers = {name: FineGrainedWorld(world, name) for name in BENCHMARKS}
    described: dict[str, list[Description]] = {name: [] for name in readers}
    gathered = DescribedRegions()
    for index in progress(range(len(world))):
        drawn, things = world.with_things(index)
        records = {name: reader.described(index, drawn, things) for name, reader in readers.items()}
        gathered.add(next(iter(records.values())), write_picture(drawn, folder / "images"))
        for name, record in records.items():
            described[name] += record.descriptions
    for name, descriptions in described.items():
        gathered.write(folder / f"{name}.json", descriptions)


FORMS: MappingProxyType[str, Callable[[World, Path, Progress], None]] = MappingProxyType(
    {"coco": _export_coco, "ade20k": _export_ade20k, "fgovd": _export_fgovd}
)
"""The forms by name: COCO's three files, ADE20K-like label maps, FG-OVD's eight benchmark files."""


def export_world(
    folder: str | Path,
    *,
    split: str = "val",
    count: int = 500,
    size: tuple[int, int] = (256, 256),
    seed: int = 0,
    form: str = "coco",
    progress: Progress = iter,
) -> Path:
    """Write ``count`` scenes of a split below ``folder`` in the form of a real data set; return the folder.

    Raises:
        InputError: the form or the split is unknown, or the folder already holds files.
    """
    if form not in FORMS:
        raise InputError(f"Unknown form {form!r} to export the world in. {suggest(form, FORMS)}")
    folder = Path(folder)
    if folder.is_file():
        raise InputError(f"The output folder {str(folder)!r} is a file. Choose a folder.")
    world = World(split, count=count, size=size, seed=seed)
    FORMS[form](world, folder, progress)
    return folder
