"""Mask-noun pairs: what one is, and a folder of them, in tar shards of the WebDataset layout, as a reader.

pairs-000000.tar    per pair KEY.png or KEY.jpg, the picture cut to the mask's tight box; KEY.mask.png; KEY.json
pairs-000000.npz    where in the shard each pair lies
...
pairs.json          counts, nouns and settings; written last, so that a folder without it is unfinished
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import PIL.Image
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from closeup.data.coco_json import check_folder, read_object
from closeup.data.images import open_image
from closeup.data.record import Record
from closeup.errors import DataError
from closeup.geometry import masks_to_boxes

INDEX = "pairs.json"
FORM = "closeup-pairs"
VERSION = 1
LAYOUT = f"{INDEX} and pairs-*.tar with pairs-*.npz, as closeup pairs writes them"


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A mask and its noun: the picture within the mask's tight box, surroundings included, and the mask on it.

    ``box`` are the pixels x0, y0, x1, y1 of the picture that were cut, ``source`` is the picture's record. ``score`` is
    how well mask and noun go together; None where an annotator has said so.
    """

    crop: PIL.Image.Image
    mask: Bool[Tensor, "rows cols"]
    noun: str
    score: float | None
    source: str
    box: tuple[int, int, int, int]


def cut_pair(
    picture: PIL.Image.Image, mask: Bool[Tensor, "height width"], noun: str, *, source: str, score: float | None = None
) -> Pair:
    """Return the pair of a mask that has a pixel; masked crops of it are those of the whole picture."""
    left, top, right, bottom = (int(side) for side in masks_to_boxes(mask[None])[0].tolist())
    box = left, top, right, bottom
    return Pair(picture.crop(box), mask[top:bottom, left:right], noun, score, source, box)


@dataclass(frozen=True, slots=True, eq=False)
class ShardIndex:
    """Where the pairs of one shard lie, and what was done when it was finished.

    ``places`` are first byte and number of bytes of the picture, then of the mask. ``done`` are counts over the whole
    run up to and with this shard, ``settings`` what the run was told.
    """

    keys: tuple[str, ...]
    nouns: tuple[str, ...]
    places: Int[np.ndarray, "pairs 4"]
    size: int
    done: Mapping[str, int]
    settings: Mapping[str, Any]

    def write(self, path: Path) -> None:
        """Write it as an npz file at a temporary path."""
        told = json.dumps({"size": self.size, "done": dict(self.done), "settings": dict(self.settings)})
        with path.open("wb") as file:
            np.savez_compressed(
                file, keys=np.array(self.keys), nouns=np.array(self.nouns), places=self.places, told=np.array(told)
            )

    @classmethod
    def read(cls, path: Path) -> ShardIndex:
        """Read one; DataError where it is missing or broken, or its shard is not of the size that it tells."""
        try:
            # Read at once: numpy leaves a file open that is no archive.
            with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as kept:
                told = json.loads(str(kept["told"]))
                keys, nouns = (tuple(kept[name].tolist()) for name in ("keys", "nouns"))
                found = cls(keys, nouns, kept["places"], told["size"], told["done"], told["settings"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise DataError(f"{path}: not the index of a shard of pairs ({error}). Write the pairs anew.") from error
        shard = path.with_suffix(".tar")
        size = shard.stat().st_size if shard.is_file() else 0
        if size != found.size:
            raise DataError(f"{shard}: has {size} bytes, not {found.size}. Copy it again, or write the pairs anew.")
        return found


class PairFolder:
    """One record a pair: its crop as the picture, one mask on it, and its noun.

    ``names`` are the nouns, the commonest first. Any pair is read by itself, in two reads of its shard.

    Raises:
        DataError: the folder holds no finished pairs, or a shard is missing or cut short.
    """

    names: tuple[str, ...]
    things: tuple[bool, ...]

    def __init__(self, folder: str | Path) -> None:
        self.folder = check_folder(folder, "pairs", LAYOUT)
        self.index = _read_index(self.folder)
        self.names = tuple(self.index["nouns"])
        self.things = (True,) * len(self.names)
        shards = [ShardIndex.read(self.folder / f"{name}.npz") for name in self.index["shards"]]
        self._shards = tuple(self.index["shards"])
        self._starts = np.cumsum([0, *(len(shard.keys) for shard in shards)])
        self._keys = np.array([key for shard in shards for key in shard.keys])
        self._places = np.concatenate([shard.places for shard in shards])
        label_of = {name: label for label, name in enumerate(self.names)}
        try:
            self._labels = np.array([label_of[noun] for shard in shards for noun in shard.nouns])
        except KeyError as error:
            raise DataError(f"{self.folder}: {INDEX} does not list the noun {error}. Write the pairs anew.") from error

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int, /) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        crop, mask = self._read(index)
        plane = torch.from_numpy(np.array(mask.convert("1")))[None]
        return Record(
            id=str(self._keys[index]),
            image=crop,
            size=(crop.height, crop.width),
            boxes=masks_to_boxes(plane),
            masks=plane,
            labels=torch.tensor([int(self._labels[index])]),
        )

    def _read(self, index: int) -> tuple[PIL.Image.Image, PIL.Image.Image]:
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        path = self.folder / f"{self._shards[shard]}.tar"
        first, size, second, mask_size = self._places[index].tolist()
        try:
            with path.open("rb") as file:
                parts = []
                for start, length in ((first, size), (second, mask_size)):
                    file.seek(start)
                    parts.append(PIL.Image.open(BytesIO(file.read(length))))
        except OSError as error:
            raise DataError(f"{path}: pair {self._keys[index]} cannot be read ({error}). Copy it again.") from error
        return open_image(parts[0]), parts[1]


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    if not path.exists():
        raise DataError(f"{folder} holds no {INDEX}: no pairs, or an unfinished run. Expected: {LAYOUT}.")
    document = read_object(path)
    if document.get("form") != FORM or document.get("version") != VERSION:
        raise DataError(f"{path}: not an index of pairs of version {VERSION}. Write the pairs anew.")
    return document
