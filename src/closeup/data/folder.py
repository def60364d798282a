"""Pictures without labels: a folder, with captions where there are some."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from closeup.data.captions import read_captions
from closeup.data.images import list_images
from closeup.data.record import Record
from closeup.errors import DataError, InputError


class ImageFolder:
    """One record an image, in natural order; its id is the path below the folder that all share.

    ``captions`` is None for none, ``"sidecar"`` for a text file beside each image (``cat.jpg``, ``cat.txt``; a
    sentence a line), or a file that `closeup.data.captions.read_captions` reads, whose names are record ids,
    or file names with or without their suffix.

    Raises:
        InputError: a path does not exist or holds no image.
        DataError: captions were asked for and none belongs to any image.
    """

    names: tuple[str, ...] = ()
    things: tuple[bool, ...] = ()

    def __init__(
        self,
        sources: str | Path | Sequence[str | Path],
        captions: Literal["sidecar"] | str | Path | None = None,
    ) -> None:
        self._paths = list_images(sources)
        root = os.path.commonpath([path.absolute().parent for path in self._paths])
        self._ids = [path.absolute().relative_to(root).as_posix() for path in self._paths]
        self._sidecar = captions == "sidecar"
        self._captions: Mapping[str, tuple[str, ...]] = {}
        if captions is not None and not self._sidecar:
            self._captions = read_captions(captions)
        if captions is not None and not any(self._has_captions(index) for index in range(len(self))):
            looked = "a .txt file beside an image" if self._sidecar else f"a line of {captions} that names an image"
            raise DataError(f"No captions: there is not {looked} among the {len(self)} images below {root}.")

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int, /) -> Record:
        return Record(id=self._ids[index], image=self._paths[index], size=None, captions=self._sentences(index))

    def _has_captions(self, index: int) -> bool:
        return self._beside(index).is_file() if self._sidecar else bool(self._sentences(index))

    def _beside(self, index: int) -> Path:
        return self._paths[index].with_suffix(".txt")

    def _sentences(self, index: int) -> tuple[str, ...]:
        if self._sidecar:
            return _read_lines(self._beside(index))
        path = self._paths[index]
        keys = (self._ids[index], path.name, path.stem)
        return next((self._captions[key] for key in keys if key in self._captions), ())


def _read_lines(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return ()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: captions are UTF-8 text ({error}).") from error
    return tuple(line.strip() for line in lines if line.strip())
