"""Embeddings of pictures and captions on disk, memory-mapped: what a frozen CLIP says is computed once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from closeup.errors import DataError

CARD = "card.json"
IMAGES, TEXTS, ITEMS = "images.f16", "texts.f16", "items.i32"
BLOCK = 4096
"""Pictures that are read at a time, where all are gone through."""


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Items of one picture and its captions each, the first of which is right; the tables stay on disk.

    ``images`` and ``texts`` are raw embeddings, each picture and each text once; behind those of pictures there may be
    details (``models.levels``). A row of ``items`` holds the row of a picture and the rows of its captions, as many in
    every item.
    """

    images: Float[np.ndarray, "pictures wide"]
    texts: Float[np.ndarray, "texts dim"]
    items: Int[np.ndarray, "items columns"]
    card: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def dim(self) -> int:
        """Width of the embeddings, those of pictures without details."""
        return int(self.texts.shape[1])

    @property
    def details(self) -> int:
        """Numbers behind the embedding of each picture."""
        return int(self.images.shape[1]) - self.dim

    def usual(self) -> tuple[Float[Tensor, " details"], Float[Tensor, " details"]]:
        """Return the mean and the deviation of each detail over all pictures."""
        total, squares = torch.zeros(self.details, dtype=torch.float64), torch.zeros(self.details, dtype=torch.float64)
        for first in range(0, len(self.images), BLOCK):
            some = torch.from_numpy(self.images[first : first + BLOCK, self.dim :].astype(np.float64))
            total, squares = total + some.sum(dim=0), squares + some.square().sum(dim=0)
        mean = total / len(self.images)
        return mean.float(), (squares / len(self.images) - mean.square()).clamp(min=0).sqrt().float()

    @property
    def wrong(self) -> int:
        """Wrong captions of each item."""
        return int(self.items.shape[1]) - 2

    def take(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Return some items as ``images`` (count, dim) and ``captions`` (count, captions, dim), in single precision."""
        items = self.items[np.asarray(rows, dtype=np.int64)]
        return {"images": _single(self.images, items[:, 0]), "captions": _single(self.texts, items[:, 1:])}


def open_features(folder: Path) -> Features:
    """Open the tables of a folder; DataError where they are not there, not finished, or not whole."""
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        sizes = card["dim"], card["pictures"], card["texts"], card["items"], card["captions"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{str(folder)!r} holds no finished embeddings ({error}). Make them anew.") from error
    dim, pictures, texts, items, captions = sizes
    try:
        return Features(
            _mapped(folder / IMAGES, np.float16, (pictures, dim + card.get("details", 0))),
            _mapped(folder / TEXTS, np.float16, (texts, dim)),
            _mapped(folder / ITEMS, np.int32, (items, 1 + captions)),
            card,
        )
    except (OSError, ValueError) as error:
        raise DataError(f"The embeddings in {str(folder)!r} are cut short ({error}). Make them anew.") from error


def _mapped(path: Path, kind: type[np.generic], shape: tuple[int, int]) -> np.ndarray:
    if path.stat().st_size != np.dtype(kind).itemsize * shape[0] * shape[1]:
        raise ValueError(f"{path.name} has {path.stat().st_size:,} bytes, which is not {shape[0]:,} x {shape[1]:,}")
    return np.memmap(path, kind, "r", shape=shape)


def _single(table: np.ndarray, rows: Int[np.ndarray, "*shape"]) -> Tensor:
    return torch.from_numpy(np.asarray(table[rows])).float()  # torch is the faster one at it
