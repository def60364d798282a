"""Karpathy's splits of COCO: the pictures and sentences on which retrieval is measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from closeup.data.coco_json import CocoJson, Entry
from closeup.data.coco_pictures import picture_path
from closeup.data.record import Record
from closeup.errors import DataError, InputError, suggest

LAYOUT = "dataset_coco.json (Karpathy's splits) with COCO's train2014/ and val2014/, or those of 2017, beside it"

SPLITS: tuple[str, ...] = ("train", "val", "test", "restval")

SENTENCES = 5
"""Sentences of a picture that count; some have six or seven. All papers take the first five."""

Restval: TypeAlias = Literal["keep", "skip"]
"""Whether ``train`` takes in the 30,504 pictures of ``restval``."""


class Karpathy:
    """Pictures with five sentences each, from a file like ``dataset_coco.json``.

    ``split`` is train, val, test or restval; ``train`` includes restval unless it is skipped, as FG-CLIP's warm-up and
    most retrieval papers do. ``count`` takes the first so many. ``images`` are folders that hold COCO's train2014 and
    val2014, or train2017 and val2017, which have the same pictures, tried in order: a record is not read where none has
    its picture, though the file opens. With ``images=None`` records have bare file names.

    Raises:
        DataError: the file is missing or of another form, or has no picture of the split.
        InputError: the split is unknown, or ``count`` is less than 1.
    """

    names: tuple[str, ...] = ()
    things: tuple[bool, ...] = ()

    def __init__(
        self,
        annotations: str | Path,
        images: Sequence[Path] | None = None,
        *,
        split: str = "test",
        restval: Restval = "keep",
        count: int | None = None,
    ) -> None:
        if split not in SPLITS:
            raise InputError(f"Unknown split {split!r} of Karpathy's. {suggest(split, SPLITS)}")
        if count is not None and count < 1:
            raise InputError(f"count={count}: give at least 1 picture.")
        self._json = CocoJson.read(annotations)
        self._folders = images
        fields = {"filename": str, "split": str, "sentences": list}
        wanted = {split, "restval"} if split == "train" and restval == "keep" else {split}
        rows = enumerate(self._json.table("images", fields))
        self._images = [self._entry(row, f"images[{place}]") for place, row in rows if row["split"] in wanted][:count]
        if not self._images:
            raise DataError(f"{self._json.path}: holds no picture of the split {split!r}.")

    @property
    def path(self) -> Path:
        """The file that is read."""
        return self._json.path

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int, /) -> Record:
        image = self._images[index]
        owned = "These are pictures of COCO's train2014 and val2014 (or train2017 and val2017)"
        path = picture_path(image, self._folders, self._json.path, owned)
        return Record(id=str(image["id"]), image=path, size=None, captions=image["captions"])

    def _entry(self, row: Entry, where: str) -> Entry:
        for number, sentence in enumerate(row["sentences"]):
            self._json.check(sentence, {"raw": str}, f"{where}, sentence {number},")
        if not row["sentences"]:
            raise DataError(f"{self._json.path}: {where} has no sentence.")
        name = f"{row['filepath']}/{row['filename']}" if row.get("filepath") else row["filename"]
        captions = tuple(sentence["raw"].strip() for sentence in row["sentences"][:SENTENCES])
        return {"id": row.get("cocoid", row["filename"]), "file_name": name, "captions": captions}
