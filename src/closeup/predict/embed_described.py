"""Described regions as embeddings: each once, however many benchmarks ask about them."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor

from closeup._types import Boxes, Embeddings, Masks
from closeup.data.record import Record
from closeup.errors import DataError
from closeup.models.clip import Clip
from closeup.models.encode_regions import MASKED
from closeup.models.preprocess import Size
from closeup.models.routes import Route
from closeup.regions import CropPolicy


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A record with described regions: the boxes or masks that the region encoder needs, and a key for each.

    Regions with one key are one region of one picture, in whatever record they stand.
    """

    record: Record
    shapes: Boxes | Masks
    keys: tuple[Hashable, ...]


def asked_of(record: Record, how: str) -> Asked | None:
    """Return what a region encoder needs of a record's regions, None where nothing is said of them; DataError as told.

    Boxes are taken from masks where there are none.
    """
    if not record.descriptions:
        return None
    shapes = record.masks if how in MASKED else record.known_boxes()
    if shapes is None:
        needed = "masks" if how in MASKED else "boxes"
        raise DataError(f"Record {record.id!r} has no {needed}, which the region encoder {how!r} needs.")
    picture = _picture_key(record)
    return Asked(record, shapes, tuple((picture, _digest(shape)) for shape in shapes))


def _picture_key(record: Record) -> str | int:
    """Return a file's name, or for a picture in memory a number that is its own as long as it is there."""
    return str(record.image) if isinstance(record.image, str | Path) else id(record.image)


def _digest(shape: Tensor) -> bytes:
    return hashlib.blake2b(shape.contiguous().cpu().numpy().tobytes(), digest_size=16).digest()


@dataclass(slots=True, eq=False)
class RegionEmbeddings:
    """The embeddings of regions, each made when it is first asked for; those of pictures in files are kept.

    ``normalize`` is as in ``Clip.encode_regions``.
    """

    clip: Clip
    how: str
    route: str | Route
    size: int | Size | None
    crop: CropPolicy | None
    batch: int
    normalize: bool
    _known: dict[Hashable, Float[Tensor, " dim"]] = field(default_factory=dict)
    _passing: set[Hashable] = field(default_factory=set)

    def embed(self, asked: Sequence[tuple[Asked, PIL.Image.Image]]) -> list[Embeddings]:
        """Return a row for every region of some records, which are given with their pictures."""
        for key in self._passing:
            del self._known[key]
        self._passing.clear()
        shown: dict[Hashable, tuple[PIL.Image.Image, dict[Hashable, Tensor]]] = {}
        for each, photo in asked:
            for key, shape in zip(each.keys, each.shapes, strict=True):
                if key not in self._known:
                    shown.setdefault(_picture_key(each.record), (photo, {}))[1][key] = shape
            if not isinstance(each.record.image, str | Path):
                self._passing.update(each.keys)
        self._learn(list(shown.values()))
        return [torch.stack([self._known[key] for key in each.keys]) for each, _ in asked]

    def _learn(self, shown: Sequence[tuple[PIL.Image.Image, dict[Hashable, Tensor]]]) -> None:
        if not shown:
            return
        shapes = [torch.stack(list(regions.values())) for _, regions in shown]
        masked = self.how in MASKED
        encoded = self.clip.encode_regions(
            [photo for photo, _ in shown],
            boxes=None if masked else shapes,
            masks=shapes if masked else None,
            how=self.how,
            route=self.route,
            size=self.size,
            crop=self.crop,
            batch=self.batch,
            normalize=self.normalize,
        )
        for (_, regions), rows in zip(shown, encoded, strict=True):
            self._known |= zip(regions, rows, strict=True)
