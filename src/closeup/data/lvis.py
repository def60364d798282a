"""LVIS: COCO's pictures in more than a thousand classes, the rare ones marked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

from closeup._types import Federated
from closeup.data.coco import CocoInstances
from closeup.data.coco_json import Entry
from closeup.data.open_vocabulary import rare_names
from closeup.data.record import Record
from closeup.errors import DataError

Frequency: TypeAlias = Literal["r", "c", "f"]
"""Rare (in 1 to 10 training images), common (to 100), frequent: the novel and base classes of open-vocabulary LVIS."""

ABSENT = "neg_category_ids"
PARTIAL = "not_exhaustive_category_ids"


class Lvis(CocoInstances):
    """COCO instances with what LVIS adds: how frequent a class is, its synonyms, and which classes were looked for.

    ``images`` is the folder that holds COCO's train2017 and val2017, where LVIS v1 finds its pictures by the
    end of ``coco_url``. Names are LVIS's own, such as ``bow_(weapon)``; the rare ones are ``novel``; there is no
    crowd. Records say which classes were looked for (``federated``) where the file does.

    Raises:
        DataError: a file or folder is missing or does not hold what it should.
    """

    frequencies: tuple[Frequency, ...]
    synonyms: tuple[tuple[str, ...], ...]

    def __init__(self, annotations: str | Path, images: str | Path | None = None, *, masks: bool = True) -> None:
        super().__init__(annotations, images, masks=masks)
        for index, row in enumerate(self._json.categories):
            self._json.check(row, {"frequency": str, "synonyms": list}, f"category {index} by id")
        self.frequencies = tuple(row["frequency"] for row in self._json.categories)
        self.synonyms = tuple(tuple(row["synonyms"]) for row in self._json.categories)
        self.novel = rare_names(self._json.categories)
        self._federated = [self._looked_for(row, f"images[{index}]") for index, row in enumerate(self._json.images)]

    def __getitem__(self, index: int, /) -> Record:
        return replace(super().__getitem__(index), federated=self._federated[index])

    def _looked_for(self, image: Entry, where: str) -> Federated | None:
        if ABSENT not in image and PARTIAL not in image:
            return None
        return Federated(self._labels(image, ABSENT, where), self._labels(image, PARTIAL, where))

    def _labels(self, image: Entry, field: str, where: str) -> tuple[int, ...]:
        ids = image.get(field, [])
        if not isinstance(ids, list) or not all(isinstance(each, int) for each in ids):
            raise DataError(f"{self._json.path}: {where} has {field!r} = {ids!r:.60}, not a list of category ids.")
        return tuple(self._json.label(each, f"{where}, {field!r},") for each in ids)
