"""The options ``--out`` and ``--format``: results of many photos as pictures, arrays and one COCO file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import PIL.Image

from closeup.cli.files import PICTURES, check_folder, check_picture, is_picture, output_names, save_picture
from closeup.errors import InputError
from closeup.predict import Provenance, Result, save_coco
from closeup.predict.result import LabelledResult

Format: TypeAlias = Literal["png", "npz", "coco"]
"""A picture a photo, its arrays, or one COCO file of all photos."""

COCO_FILE = "coco.json"

OTHER_FILES = (".json", ".npz", ".npy", ".gif", ".bmp", ".tif", ".tiff", ".pdf", ".svg")
"""Nobody who names such an output means a folder."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a COCO file needs of a result, without its masks."""

    image: Path
    size: tuple[int, int]
    names: tuple[str, ...]
    provenance: Provenance
    rows: list[dict[str, Any]]

    def annotations(self) -> list[dict[str, Any]]:
        """Return the annotations."""
        return self.rows


class Saver:
    """Writes results as they come; nothing is made before the first.

    Raises:
        InputError: the output cannot be written to, would replace a photo, or is one file for many.
    """

    def __init__(self, out: Path, formats: Sequence[Format], photos: Sequence[Path]) -> None:
        self._out = out
        self._formats = tuple(dict.fromkeys(formats))
        self._names = output_names(photos)
        self._told: list[Told] = []
        self.written: list[Path] = []
        if is_picture(out):
            if len(photos) > 1:
                raise InputError(f"--out {out}: this is one picture, for {len(photos)} photos. Give a folder.")
            if self._formats != ("png",):
                raise InputError(f"--out {out}: this is one picture, for --format {' '.join(formats)}. Give a folder.")
            check_picture(out)
        else:
            if out.suffix.lower() in OTHER_FILES and not out.is_dir():
                raise InputError(f"--out {out}: give a folder, with --format, or one picture ({', '.join(PICTURES)}).")
            check_folder(out)
        if "png" in self._formats:
            self._spare(photos)

    def save(self, photo: Path, result: Result) -> None:
        """Write what is written photo by photo."""
        for suffix in self._formats:
            if suffix == "coco" and isinstance(result, LabelledResult):
                self._told.append(Told(photo, result.size, result.names, result.provenance, result.annotations()))
            else:
                self.written.append(result.save(self._place(photo, suffix)))

    def save_beside(self, photo: Path, picture: PIL.Image.Image, ending: str) -> None:
        """Write one more picture of a photo, whose name ends so."""
        place = self._place(photo, "png")
        self.written.append(save_picture(picture, place.with_name(f"{place.stem}-{ending}{place.suffix}")))

    def finish(self) -> None:
        """Write what is written once."""
        if self._told:
            self.written.append(save_coco(self._told, self._out / COCO_FILE))

    def _place(self, photo: Path, suffix: str) -> Path:
        if is_picture(self._out):
            return self._out
        name = self._names[photo]
        return self._out / name.with_name(f"{name.name}.{suffix}")

    def _spare(self, photos: Sequence[Path]) -> None:
        originals = {photo.resolve() for photo in photos}
        for photo in photos:
            place = self._place(photo, "png")
            if place.resolve() in originals:
                raise InputError(f"--out {self._out}: {place} is one of the photos. Choose another place.")
