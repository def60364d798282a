"""Regions found in pictures, found once: what ``regions.propose`` gives, kept on disk by content."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import TypeAlias
from zipfile import BadZipFile

import numpy as np
import PIL.Image
import torch

from closeup._types import Boxes
from closeup.data.atomic import replacing
from closeup.errors import CloseupError
from closeup.regions.propose import CoarseMasks, ProposalPolicy, propose
from closeup.text.cache import cache_folder, content_key

KEY_BYTES = 16


Found: TypeAlias = tuple[Boxes, CoarseMasks | None]
"""Boxes of what was found in a picture, the largest region first, and its masks where they are wanted."""


class RegionFinder:
    """Returns the regions of a picture, from the disk where they were found before.

    One file a picture, named after its pixels, in a folder named after the policy: 4 kB of boxes, or 80 kB with
    ``masks``. A file appears whole or not at all, and one that is broken is made again, so that any number of
    processes may share a folder. ``folder`` is ``closeup.text.cache.cache_folder()`` unless given.

    Raises:
        CloseupError: the folder cannot be written.
    """

    def __init__(
        self, folder: str | Path | None = None, policy: ProposalPolicy | None = None, *, masks: bool = False
    ) -> None:
        self._policy = policy or ProposalPolicy()
        self._masks = masks
        root = cache_folder() if folder is None else Path(folder)
        self.folder = root / "found-regions" / content_key(asdict(self._policy), masks)[:32]

    def __call__(self, picture: PIL.Image.Image) -> Found:
        """Return what is found in an RGB picture."""
        key = picture_digest(picture).hexdigest()
        path = self.folder / key[:2] / f"{key}.npz"
        found = _read(path)
        if found is None:
            proposed = propose(picture, self._policy)
            found = proposed.boxes, proposed.masks if self._masks else None
            self._keep(path, *found)
        return found

    def _keep(self, path: Path, boxes: Boxes, masks: CoarseMasks | None) -> None:
        parts = {"boxes": boxes.numpy()}
        if masks is not None:
            planes = masks.planes.numpy()
            parts |= {"bits": np.packbits(planes), "shape": np.array(planes.shape), "size": np.array(masks.size)}
        try:
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, **parts)  # type: ignore[arg-type]
        except OSError as error:
            raise CloseupError(
                f"Cannot keep the regions found in pictures in {self.folder}: {error.strerror or error}. Free some "
                "space, or choose another folder: the cache of the recipe, or CLOSEUP_CACHE in the environment."
            ) from error


def picture_digest(picture: PIL.Image.Image) -> hashlib.blake2b:
    """Return a digest that has seen a picture's size and pixels, to which more may be added."""
    digest = hashlib.blake2b(repr(picture.size).encode(), digest_size=KEY_BYTES)
    digest.update(picture.tobytes())
    return digest


def _read(path: Path) -> Found | None:
    """Return what was kept; None where there is nothing, or nothing whole."""
    try:
        # Read at once: numpy leaves a file open that is no archive.
        with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as kept:
            boxes = torch.from_numpy(kept["boxes"])
            if "bits" not in kept:
                return boxes, None
            shape, (height, width) = tuple(kept["shape"].tolist()), kept["size"].tolist()
            planes = np.unpackbits(kept["bits"], count=int(np.prod(shape))).reshape(shape).astype(bool)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        return None
    return boxes, CoarseMasks(torch.from_numpy(planes), (height, width))
