"""Teacher embeddings kept on disk: half precision, memory-mapped, found again by content."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from closeup._types import Embeddings
from closeup.data.atomic import write_json
from closeup.errors import CloseupError
from closeup.recipes.distill_regions import Candidates
from closeup.recipes.found_regions import picture_digest
from closeup.regions.propose import CoarseMasks
from closeup.text.cache import content_key

Addresses = Int[Tensor, "count 3"]
"""Where embeddings are kept: the two words of a picture's key, and a row of its file."""


class TeacherStore:
    """One file a picture and set of regions, in a folder named after the teacher and its preprocessing.

    Every row is an embedding of length one. A row that is not of that length was never written, or only in part:
    it counts as missing and is computed again. So there is no index that could disagree with the files, a killed
    run leaves nothing to repair, and any number of processes may read and write at once, since all of them
    write the same. The 361 cells of a picture take 0.36 MB for 512 dimensions.

    Raises:
        CloseupError: the folder cannot be made or written.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, object], dim: int) -> None:
        self.folder = Path(folder) / content_key(dict(identity), dim)[:32]
        self.dim = dim
        card = self.folder / "card.json"
        if not card.exists():
            try:
                write_json(card, {**identity, "dim": dim})
            except OSError as error:
                raise _unwritable(self.folder, error) from error

    def read(
        self, key: bytes, rows: Int[Tensor, " count"]
    ) -> tuple[Float[Tensor, "count dim"], Bool[Tensor, " count"]]:
        """Return the rows of a picture in single precision, zero where missing, and which of them are there."""
        found = torch.zeros(len(rows), self.dim)
        path = self._path(key)
        whole = path.stat().st_size // self._row_bytes if path.exists() else 0
        stored = rows < whole
        if stored.any():
            table = np.memmap(path, np.float16, "r", shape=(whole, self.dim))
            found[stored] = torch.from_numpy(table[rows[stored].numpy()].astype(np.float32))
        there = (found.norm(dim=1) - 1).abs() < 0.01
        found[~there] = 0
        return found, there

    def write(self, addresses: Addresses, embeddings: Embeddings) -> None:
        """Keep embeddings of length one at their addresses."""
        places = addresses.cpu().numpy()
        values = embeddings.detach().half().cpu().numpy()
        for words in np.unique(places[:, :2], axis=0):
            chosen = (places[:, :2] == words).all(axis=1)
            self._write_rows(words.tobytes(), places[chosen, 2].tolist(), values[chosen])

    def _write_rows(self, key: bytes, rows: list[int], values: Float[np.ndarray, "count dim"]) -> None:
        path = self._path(key)
        try:
            path.parent.mkdir(exist_ok=True)
            # Written and not mapped: on a full disk a write is an error, and a mapped page is the end of the process.
            handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                for row, value in zip(rows, values, strict=True):
                    os.pwrite(handle, value.tobytes(), row * self._row_bytes)
            finally:
                os.close(handle)
        except OSError as error:
            raise _unwritable(self.folder, error) from error

    def _path(self, key: bytes) -> Path:
        return self.folder / key.hex()[:2] / f"{key.hex()}.f16"

    @property
    def _row_bytes(self) -> int:
        return 2 * self.dim


def picture_key(picture: PIL.Image.Image, candidates: Candidates | None = None) -> bytes:
    """Return the digest of a picture's pixels and, where given, of all its candidate regions and their crops."""
    digest = picture_digest(picture)
    if candidates is not None:
        digest.update(repr(candidates.crop).encode())
        digest.update(candidates.boxes.numpy().tobytes())
        if candidates.masks is not None:
            planes = candidates.masks.planes if isinstance(candidates.masks, CoarseMasks) else candidates.masks
            digest.update(np.packbits(planes.numpy()).tobytes())
    return digest.digest()


def addresses(key: bytes, rows: Int[Tensor, " count"]) -> Addresses:
    """Return where the rows of a picture are kept, as a table of numbers that travels with a batch."""
    words = torch.from_numpy(np.frombuffer(key, np.int64).copy())
    return torch.cat([words.expand(len(rows), 2), rows[:, None].long()], dim=1)


def _unwritable(folder: Path, error: OSError) -> CloseupError:
    return CloseupError(
        f"Cannot write teacher embeddings to {folder}: {error.strerror or error}. "
        "What is there stays good; free some space or choose another folder, then resume."
    )
