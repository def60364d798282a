"""LVIS: COCO's pictures in more than a thousand classes, the rare ones marked."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from closeup.data.coco import CocoInstances

Frequency: TypeAlias = Literal["r", "c", "f"]
"""Rare (in 1 to 10 training images), common (to 100), frequent: the novel and base classes of open-vocabulary LVIS."""


class Lvis(CocoInstances):
    """COCO instances with what LVIS adds: how frequent a class is, and its synonyms.

    ``images`` is the folder that holds COCO's train2017 and val2017, where LVIS v1 finds its pictures by the
    end of ``coco_url``. Names are LVIS's own, such as ``bow_(weapon)``; there is no crowd.

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
