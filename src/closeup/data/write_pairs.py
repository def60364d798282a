"""Mask-noun pairs out: tar shards that any WebDataset reader takes, each whole or not there, and last the index."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
import PIL.Image

from closeup.data.atomic import replacing, write_json
from closeup.data.pairs import FORM, INDEX, VERSION, Pair, ShardIndex
from closeup.errors import InputError

PictureForm: TypeAlias = Literal["png", "jpg"]
"""How crops are kept: exactly, or, for photographs, in about a third of the space."""

QUALITY = 95


class PairWriter:
    """Writes the pairs of pictures, one picture after the other, into a folder; a context manager.

    A shard ends with the picture that fills it. Leaving the block well writes the index; leaving it by an error leaves
    the shards that are whole, from which a writer with ``resume`` goes on: skip the first ``pictures`` pictures. Equal
    pairs give equal shards, resumed or not.

    Raises:
        InputError: the folder holds pairs already, or others than those that are resumed.
    """

    def __init__(
        self,
        folder: str | Path,
        settings: Mapping[str, Any],
        *,
        per_shard: int = 1000,
        form: PictureForm = "png",
        resume: bool = False,
    ) -> None:
        if per_shard < 1:
            raise InputError(f"{per_shard} pairs a shard: give 1 or more.")
        self.folder = Path(folder)
        self._settings = {**settings, "per_shard": per_shard, "format": form}
        self._per_shard, self._form = per_shard, form
        self._done: Counter[str] = Counter()
        self._nouns: Counter[str] = Counter()
        self._shards: list[str] = []
        self._open: _Shard | None = None
        self._resume(resume)

    @property
    def pictures(self) -> int:
        """The number of pictures that are done."""
        return self._done["pictures"]

    @property
    def counts(self) -> dict[str, int]:
        """Pictures, those left out, those without a pair, and pairs."""
        return {name: self._done[name] for name in ("pictures", "left_out", "without_pair", "pairs")}

    @property
    def nouns(self) -> dict[str, int]:
        """How many pairs each noun has, the commonest first, equally common ones by name."""
        return dict(sorted(self._nouns.items(), key=lambda item: (-item[1], item[0])))

    def __enter__(self) -> PairWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            if self._open is not None:
                self._open.abandon(kind, error, trace)
            return
        if self._open is not None:
            self._finish(self._open)
        if self._shards:
            self._write_index()

    def add(self, pairs: Sequence[Pair], *, left_out: bool = False) -> None:
        """Write the pairs of the next picture; ``left_out`` marks one that could not be used."""
        picture = self._done["pictures"]
        for row, pair in enumerate(pairs):
            if self._open is None:
                self._open = _Shard(self.folder / f"{_name(len(self._shards))}.tar", self._form)
            self._open.append(f"{picture:09d}-{row:04d}", pair)
            self._nouns[pair.noun] += 1
        self._done["pictures"] += 1
        self._done["pairs"] += len(pairs)
        self._done["left_out"] += left_out
        self._done["without_pair"] += not pairs and not left_out
        if self._open is not None and len(self._open) >= self._per_shard:
            self._finish(self._open)

    def _finish(self, shard: _Shard) -> None:
        self._open = None
        # The index makes a shard count: a shard without one is written again.
        index = shard.close(self.counts, self._settings)
        with replacing(shard.path.with_suffix(".npz")) as temporary:
            index.write(temporary)
        self._shards.append(shard.path.stem)

    def _write_index(self) -> None:
        told = {"form": FORM, "version": VERSION, **self.counts, "nouns": self.nouns}
        write_json(self.folder / INDEX, {**told, "shards": self._shards, "settings": self._settings})

    def _resume(self, resume: bool) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is a file. Choose a folder for the pairs.")
        if (self.folder / INDEX).exists():
            raise InputError(f"{self.folder} holds pairs already. Choose another folder, or remove it first.")
        if not resume:
            if next(self.folder.glob("pairs-*"), None) is not None:
                raise InputError(
                    f"{self.folder} holds pairs of a run that was not finished. Resume it, or remove the folder first."
                )
            return
        while (path := self.folder / f"{_name(len(self._shards))}.npz").exists():
            index = ShardIndex.read(path)
            if index.settings != json.loads(json.dumps(self._settings)):
                raise InputError(_difference(self.folder, self._settings, index.settings))
            self._done = Counter(index.done)
            self._nouns.update(index.nouns)
            self._shards.append(path.stem)


class _Shard:
    """A tar file under a temporary name until it is closed."""

    def __init__(self, path: Path, form: PictureForm) -> None:
        self.path = path
        self._form = form
        self._keys: list[str] = []
        self._nouns: list[str] = []
        self._places: list[tuple[int, int, int, int]] = []
        self._stack = ExitStack()
        temporary = self._stack.enter_context(replacing(path))
        self._file: BinaryIO = self._stack.enter_context(temporary.open("wb"))
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def __len__(self) -> int:
        return len(self._keys)

    def append(self, key: str, pair: Pair) -> None:
        mask = PIL.Image.fromarray(pair.mask.cpu().numpy())
        told = {"noun": pair.noun, "score": pair.score, "source": pair.source, "box": pair.box}
        picture = self._member(f"{key}.{self._form}", encoded(pair.crop, self._form))
        plane = self._member(f"{key}.mask.png", encoded(mask, "png"))
        self._member(f"{key}.json", json.dumps(told, ensure_ascii=False).encode())
        self._keys.append(key)
        self._nouns.append(pair.noun)
        self._places.append((*picture, *plane))

    def close(self, done: Mapping[str, int], settings: Mapping[str, Any]) -> ShardIndex:
        with self._stack:
            self._tar.close()
            size = self._file.tell()
        places = np.array(self._places, dtype=np.int64).reshape(-1, 4)
        return ShardIndex(tuple(self._keys), tuple(self._nouns), places, size, done, settings)

    def abandon(self, kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)

    def _member(self, name: str, content: bytes) -> tuple[int, int]:
        """Write a file without owner or date, so that equal pairs give equal shards; return where its bytes lie."""
        info = tarfile.TarInfo(name)
        info.size = len(content)
        start = self._file.tell() + tarfile.BLOCKSIZE
        self._tar.addfile(info, io.BytesIO(content))
        return start, len(content)


def encoded(picture: PIL.Image.Image, form: PictureForm) -> bytes:
    """Return the bytes of a picture file."""
    file = io.BytesIO()
    if form == "png":
        picture.save(file, "PNG")
    else:
        # Colour at full size: small crops are enlarged later.
        picture.save(file, "JPEG", quality=QUALITY, subsampling=0)
    return file.getvalue()


def _name(number: int) -> str:
    return f"pairs-{number:06d}"


def _difference(folder: Path, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    names = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
    told = ", ".join(f"{name} was {found.get(name)!r} and is now {wanted.get(name)!r}" for name in names)
    return f"{folder}: {told}. Resume with the settings of the run, or remove the folder first."
