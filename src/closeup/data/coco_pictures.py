"""COCO's pictures for data sets that only name them: where they are looked for, and what is said where they lack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from closeup.data.coco_json import Entry, image_path
from closeup.errors import DataError


def folders_beside(annotations: str | Path) -> tuple[Path, ...]:
    """Return where pictures are looked for by default: beside an annotation file, and beside its folder."""
    folder = Path(annotations).expanduser().parent
    return tuple(place / below for place in (folder, folder.parent) for below in ("", "images"))


def picture_path(image: Entry, folders: Sequence[Path] | None, annotations: Path, owned: str) -> Path:
    """Return where the picture of an image entry lies: the first folder that has it, as ``coco_json.image_path`` looks.

    COCO 2017 holds the pictures of 2014 under shorter names, so train2017 and val2017 are tried below each folder.
    Without folders the name alone is returned. ``owned`` says in the message whose pictures they are.

    Raises:
        DataError: no folder has it.
    """
    if folders is None:
        return image_path(image, None)
    for folder in folders:
        for below in ("", "train2017", "val2017"):
            try:
                return image_path(image, folder / below)
            except DataError:
                continue
    places = ", ".join(dict.fromkeys(map(str, folders)))
    name = image_path(image, None).as_posix()
    raise DataError(
        f"{annotations}: its picture {name!r} is missing; looked for below {places}. {owned}:"
        " name the folder that holds both with images=FOLDER."
    )
