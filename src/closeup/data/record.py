"""The one form in which every reader hands over an image and what is known about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import PIL.Image

from closeup._types import Boxes, Federated, Groups, ImageLike, LabelMap, Labels, Masks
from closeup.data.images import open_image
from closeup.errors import InputError
from closeup.geometry import masks_to_boxes


@dataclass(frozen=True, slots=True)
class Description:
    """What is said of a region: the caption that is right, and captions that are wrong in known ways, in order.

    Fine-grained benchmarks ask whether the right one scores above the first N wrong ones (FG-OVD, arXiv 2311.17518).
    """

    right: str
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One image with its regions, label map and captions; what a data set does not say is None or empty.

    Boxes, masks, labels and attributes, where given, speak of the same regions in the same order.
    ``size`` is ``(height, width)`` of the original image, None where it is not known without opening it.
    ``labels`` and ``label_map`` index the reader's ``names``; IGNORE (-1) marks what takes no part.
    ``attributes`` holds one mapping per region, such as ``{"colour": "red", "pattern": "striped"}``, and
    ``descriptions`` one description per region.
    ``groups`` outline several things together (COCO's crowds) and are no regions: what is found there of their class
    is neither right nor wrong. ``federated`` tells which classes were looked for where not all were (LVIS); None: all
    of ``names``.

    Raises:
        InputError: the parts disagree about the number of regions or the size of the image.
    """

    id: str
    image: ImageLike
    size: tuple[int, int] | None
    boxes: Boxes | None = None
    masks: Masks | None = None
    labels: Labels | None = None
    label_map: LabelMap | None = None
    captions: tuple[str, ...] = ()
    attributes: tuple[Mapping[str, str], ...] = ()
    descriptions: tuple[Description, ...] = ()
    groups: Groups | None = None
    federated: Federated | None = None

    def __post_init__(self) -> None:
        _agree(self.id, "number of regions", dict(self._counts()))
        _agree(self.id, "image size (height, width)", dict(self._sizes()))

    @property
    def count(self) -> int:
        """The number of regions; zero where only the image, its label map or its captions are known."""
        return next((count for _, count in self._counts()), 0)

    def known_boxes(self) -> Boxes | None:
        """Return the boxes, or those around the masks where there are none; None where there are neither."""
        if self.boxes is not None:
            return self.boxes
        return None if self.masks is None else masks_to_boxes(self.masks)

    def load(self) -> PIL.Image.Image:
        """Return the picture in RGB, upright.

        Raises:
            ImageError: the file is missing or is not a usable image.
            InputError: the picture is not of the size that the record promises.
        """
        picture = open_image(self.image)
        _agree(self.id, "image size (height, width)", {"image": (picture.height, picture.width), **dict(self._sizes())})
        return picture

    def _counts(self) -> Iterator[tuple[str, int]]:
        for name in ("boxes", "masks", "labels"):
            value = getattr(self, name)
            if value is not None:
                yield name, len(value)
        for name in ("attributes", "descriptions"):
            if given := getattr(self, name):
                yield name, len(given)

    def _sizes(self) -> Iterator[tuple[str, tuple[int, int]]]:
        if self.size is not None:
            yield "size", self.size
        for name in ("masks", "label_map"):
            value = getattr(self, name)
            if value is not None:
                yield name, (value.shape[-2], value.shape[-1])


@runtime_checkable
class Reader(Protocol):
    """A data set: an ordered, countable source of records, each decoded only when it is asked for.

    ``names`` are the words that labels index; ``things`` says of each name whether it has instances
    (a thing) or is an amorphous ground (stuff). Both are empty where a data set has no labels.
    `iterate` walks through all of one.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """The words that labels index."""
        ...

    @property
    def things(self) -> tuple[bool, ...]:
        """One entry per name: True for a thing, False for stuff."""
        ...

    def __len__(self) -> int:
        """Return the number of records."""
        ...

    def __getitem__(self, index: int, /) -> Record:
        """Read and decode one record."""
        ...


def iterate(reader: Reader) -> Iterator[Record]:
    """Yield every record of a reader in order, each decoded when it is asked for."""
    return (reader[index] for index in range(len(reader)))


def _agree(identity: str, what: str, said: Mapping[str, object]) -> None:
    if len(set(said.values())) > 1:
        claims = ", ".join(f"{name} says {value}" for name, value in said.items())
        raise InputError(f"Record {identity!r}: its parts disagree about the {what}: {claims}. Make them agree.")
