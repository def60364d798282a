"""FG-OVD: regions with the one caption that is right and captions that are wrong in few attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from closeup.data.coco import CocoInstances
from closeup.data.coco_json import CocoJson, Entry, check_folder, image_size
from closeup.data.coco_pictures import picture_path
from closeup.data.record import Description, Record
from closeup.errors import DataError

LAYOUT = (
    "1_attributes.json, color.json or another of FG-OVD's files, in the folder or in its benchmarks/, chosen with"
    " split=1_attributes; COCO's train2017/ and val2017/ beside it"
)

NEGATIVES = "neg_category_ids"

_SLACK = 0.01
"""Pixels by which a box may pass the edge of its picture: the files round to hundredths."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One of the eight benchmarks.

    ``negatives`` is N: how many wrong captions stand beside the right one, the first N in the file's order; regions
    with fewer are left out. ``changes`` is what is wrong in them: a number of attributes, a family of the lexicons, or
    None where they are captions of other things.
    """

    title: str
    negatives: int
    changes: int | str | None


BENCHMARKS: Mapping[str, Benchmark] = MappingProxyType(
    {
        "shuffle_negatives": Benchmark("Trivial", 10, None),
        "3_attributes": Benchmark("Easy", 10, 3),
        "2_attributes": Benchmark("Medium", 10, 2),
        "1_attributes": Benchmark("Hard", 10, 1),
        "color": Benchmark("Color", 10, "colour"),
        "material": Benchmark("Material", 10, "material"),
        "pattern": Benchmark("Pattern", 7, "pattern"),
        "transparency": Benchmark("Transparency", 2, "transparency"),
    }
)
"""The benchmarks by the names of their files, in the order of the paper's tables (arXiv 2311.17518)."""


def find_benchmarks(folder: str | Path) -> dict[str, Path]:
    """Return the benchmark files that a folder, or ``benchmarks`` in it, holds, by name in the order of the paper.

    Raises:
        DataError: there is no such folder, or it holds none of them.
    """
    root = check_folder(folder, "benchmarks")
    places = {name: [root / f"{name}.json", root / "benchmarks" / f"{name}.json"] for name in BENCHMARKS}
    found = {name: path for name, paths in places.items() for path in paths[::-1] if path.is_file()}
    if not found:
        raise DataError(f"{root}: holds none of FG-OVD's files. Expected: {LAYOUT}.")
    return found


class FgOvd(CocoInstances):
    """Regions and their descriptions from one file of FG-OVD; every image with annotations is a record.

    Names are the captions, right and wrong, sorted by id: a text may stand there under several ids. Labels are those
    of the right captions; descriptions hold all wrong ones in the file's order. Training, validation and benchmark
    files have one form (``lorebianchi98/FG-OVD``). ``images`` are folders that may hold COCO's train2017 and val2017,
    tried in order: a record is not read where none has its picture, though the file opens. With ``images=None`` records
    have bare file names.

    Raises:
        DataError: the file is missing or no FG-OVD file, a wrong caption is not in it, or a box is outside its image.
    """

    def __init__(
        self, annotations: str | Path | CocoJson, images: Sequence[Path] | None = None, *, masks: bool = True
    ) -> None:
        super().__init__(annotations, None, masks=masks)
        self._folders = images
        self._said = {row["id"]: row["name"] for row in self._json.categories}
        sizes = {image["id"]: image_size(image) for image in self._json.images}
        for index, row in enumerate(self._json.document["annotations"]):
            where = f"annotations[{index}]"
            self._check_negatives(row, where)
            self._check_inside(row, sizes[row["image_id"]], where)
        self._kept = [index for index, image in enumerate(self._json.images) if self._rows[image["id"]]]

    @property
    def path(self) -> Path:
        """The file that is read."""
        return self._json.path

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int, /) -> Record:
        place = self._kept[index]
        image = self._json.images[place]
        owned = "FG-OVD is about COCO's train2017 and val2017"
        found = picture_path(image, self._folders, self._json.path, owned)
        described = tuple(map(self._description, self._rows[image["id"]]))
        return replace(super().__getitem__(place), image=found, descriptions=described)

    def _description(self, row: Entry) -> Description:
        return Description(self._said[row["category_id"]], tuple(self._said[each] for each in row[NEGATIVES]))

    def _check_negatives(self, row: Entry, where: str) -> None:
        if NEGATIVES not in row:
            raise DataError(
                f"{self._json.path}: {where} has no {NEGATIVES!r}, the wrong captions, so this is not an FG-OVD file."
                " Plain COCO annotations are read as coco:FILE."
            )
        self._json.check(row, {NEGATIVES: list, "bbox": list}, where)
        for each in row[NEGATIVES]:
            if not isinstance(each, int) or each not in self._said:
                raise DataError(
                    f"{self._json.path}: {where} has {each!r} in {NEGATIVES!r}, which is not among the"
                    f" {len(self._said)} categories of the file."
                )

    def _check_inside(self, row: Entry, size: tuple[int, int] | None, where: str) -> None:
        x, y, width, height = row["bbox"]
        if size is None:
            raise DataError(f"{self._json.path}: {where} is of image {row['image_id']!r}, which has no size.")
        inside = min(x, y) >= -_SLACK and x + width <= size[1] + _SLACK and y + height <= size[0] + _SLACK
        if not inside or min(width, height) <= 0:
            raise DataError(
                f"{self._json.path}: {where} has the box {row['bbox']} (x, y, width, height), which is not inside its"
                f" image of {size[1]} x {size[0]} pixels. Clip the box, or delete the annotation."
            )
