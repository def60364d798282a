"""Masks of photos that other programs have made: one npz, json or folder of PNGs a photo."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import BadZipFile

import numpy as np
import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor

from closeup._types import Masks
from closeup.data.images import natural_key
from closeup.data.rle import decode_mask
from closeup.errors import DataError
from closeup.regions import as_masks, check_masks

Scores: TypeAlias = Float[Tensor, " count"]

SCORES = ("predicted_iou", "score")
"""What the score of a mask is called: by SAM, and in COCO's results."""
FORMS = "NAME.npz (an array `masks`), NAME.json (COCO annotations, run lengths, or SAM's list) or NAME/*.png"


@dataclass(frozen=True, slots=True, eq=False)
class FoundMasks:
    """Masks of one picture, none of them empty, and how good each is where that is known."""

    masks: Masks
    scores: Scores | None = None

    def __len__(self) -> int:
        """Return the number of masks."""
        return len(self.masks)


def found_masks(masks: object, size: tuple[int, int], where: str, scores: Scores | None = None) -> FoundMasks:
    """Return masks of a picture of (height, width) without the empty ones; InputError for masks of something else."""
    planes = as_masks(masks, where)
    if not len(planes):
        return FoundMasks(torch.zeros(0, *size, dtype=torch.bool), scores)
    seen = planes.flatten(1).any(dim=1)
    # A hundred masks of a large photograph are a gigabyte: none is copied but where one is empty.
    kept = planes if bool(seen.all()) else planes[seen]
    check_masks(kept, *size, where)
    if scores is not None and len(scores) != len(planes):
        raise DataError(f"{where}: has {len(planes)} masks and {len(scores)} scores. Give one a mask, or none.")
    return FoundMasks(kept, None if scores is None else scores[seen])


def read_masks(folder: Path, names: Sequence[str], size: tuple[int, int]) -> FoundMasks:
    """Return the masks of the photo of a (height, width) that a folder has under the first of some names.

    Raises:
        DataError: there are none, or in an unknown form.
        InputError: they are not of the photo's size.
    """
    for name in names:
        for path, read in ((folder / f"{name}.npz", _npz), (folder / f"{name}.json", _json), (folder / name, _planes)):
            if path.exists() and path.is_dir() == (read is _planes):
                masks, scores = read(path, size)
                return found_masks(masks, size, str(path), scores)
    raise DataError(f"{folder}: holds no masks of {' or '.join(names)}. Looked for {FORMS}.")


def _npz(path: Path, size: tuple[int, int]) -> tuple[object, Scores | None]:
    try:
        # Read at once: numpy leaves a file open that is no archive.
        with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in kept.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as arrays ({error}).") from error
    scores = next((arrays.pop(name) for name in ("scores", *SCORES) if name in arrays), None)
    if "masks" not in arrays and len(arrays) != 1:
        raise DataError(f"{path}: holds the arrays {', '.join(arrays) or 'none'}. Call the masks' array `masks`.")
    masks = arrays["masks"] if "masks" in arrays else next(iter(arrays.values()))
    return masks, None if scores is None else torch.from_numpy(np.asarray(scores, dtype=np.float32)).flatten()


def _json(path: Path, size: tuple[int, int]) -> tuple[object, Scores | None]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a json file ({error}).") from error
    rows = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise DataError(f"{path}: holds no list of masks. Give COCO annotations, run lengths, or SAM's list.")
    masks = [_decoded(row, size, f"{path}: mask {index}") for index, row in enumerate(rows)]
    return masks, _scores(rows)


def _decoded(row: Any, size: tuple[int, int], where: str) -> object:  # noqa: ANN401 - json of an unknown form
    if not isinstance(row, Mapping) or not (row.get("segmentation") or "counts" in row):
        raise DataError(f"{where}: has no 'segmentation', and is no run lengths: {row!r:.60}.")
    return decode_mask(row.get("segmentation") or row, *size, where)


def _planes(path: Path, size: tuple[int, int]) -> tuple[object, Scores | None]:
    files = sorted(path.glob("*.png"), key=natural_key)
    masks = [_plane(file) for file in files]
    table = path / "metadata.csv"
    if not table.is_file():
        return masks, None
    # SAM's own script writes its scores beside the planes, which are numbered.
    with table.open(encoding="utf-8", newline="") as file:
        by_name = {f"{row.get('id')}.png": row for row in csv.DictReader(file)}
    return masks, _scores([by_name.get(file.name, {}) for file in files])


def _plane(path: Path) -> object:
    try:
        with PIL.Image.open(path) as picture:
            return np.asarray(picture if picture.mode in ("1", "L", "P", "I;16") else picture.convert("L"))
    except (OSError, SyntaxError) as error:
        raise DataError(f"{path}: the mask cannot be read ({error}).") from error


def _scores(rows: Sequence[Mapping[str, Any]]) -> Scores | None:
    name = next((name for name in SCORES if rows and all(name in row for row in rows)), None)
    try:
        return None if name is None else torch.tensor([float(row[name]) for row in rows])
    except (TypeError, ValueError):
        return None
