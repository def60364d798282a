"""Fills a folder of embeddings from records: regions with their captions, or whole pictures with theirs."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from filelock import FileLock, Timeout

from closeup._types import Boxes, Embeddings
from closeup.data.atomic import write_json
from closeup.data.prefetch import prefetched
from closeup.data.record import Reader, Record
from closeup.errors import CloseupError, DataError, InputError
from closeup.models.clip import Clip
from closeup.models.levels import ClipWithLevels
from closeup.recipes.features import CARD, IMAGES, ITEMS, TEXTS, Features, open_features
from closeup.regions import FG_CLIP, CropPolicy

BEGUN = "begun.json"
WORDS = "texts.jsonl"
CAPTIONS = 5
"""The first so many captions of a picture are used, as FG-CLIP does of COCO's."""


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A picture, what to cut out of it (None: nothing), and the captions of each of the embeddings that it gives."""

    picture: PIL.Image.Image
    boxes: Boxes | None
    items: tuple[tuple[int, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Dense:
    """Regions from the dense map of pictures whose longest side has so many pixels (None: the model's own).

    ``unit``: whether cells are brought to length one before they are pooled, as they are for matchers of such
    embeddings.
    """

    size: int | None = None
    unit: bool = False


def regions_with_wrong(wrong: int) -> Callable[[Record], Shown | None]:
    """Return how described regions are taken: their crops, the right caption and the first ``wrong`` wrong ones.

    A region with fewer wrong captions is left out, as FG-CLIP does.
    """

    def take(record: Record) -> Shown | None:
        boxes = record.known_boxes()
        asked = [row for row, each in enumerate(record.descriptions) if len(each.wrong) >= wrong]
        if not asked or boxes is None:
            return None
        told = [record.descriptions[row] for row in asked]
        items = tuple((place, (each.right, *each.wrong[:wrong])) for place, each in enumerate(told))
        return Shown(record.load(), boxes[asked], items)

    return take


def whole_pictures(record: Record) -> Shown | None:
    """Return how whole pictures are taken: one item for each of the first five captions."""
    items = tuple((0, (caption,)) for caption in record.captions[:CAPTIONS])
    return Shown(record.load(), None, items) if items else None


def embed_features(
    clip: Clip,
    reader: Reader,
    take: Callable[[Record], Shown | None],
    folder: Path,
    *,
    told: Mapping[str, Any],
    captions: int,
    enlarge: float = 1.0,
    dense: Dense | None = None,
    batch: int = 32,
    workers: int = 2,
    on_progress: Callable[[int, int], object] | None = None,
) -> Features:
    """Embed what ``take`` makes of every record into a folder, each picture and each text once, and open it.

    What is there is kept: finished embeddings are opened, and a run that was stopped goes on after its last batch of
    records. ``told`` says which records these are; with the CLIP's fingerprint it is kept in the card. ``captions`` is
    how many each item has. Regions are cut out, or pooled as ``dense`` says.

    Raises:
        InputError: the folder holds embeddings of other records or of another CLIP, or is being filled by another run.
        DataError: no record has anything to take, or what was begun cannot be read.
        CloseupError: the disk is full, or the folder cannot be written; what is whole there stays.
    """
    told = {**told, "clip": clip.fingerprint, "enlarge": enlarge, "captions": captions}
    levels = clip.levels if isinstance(clip, ClipWithLevels) else ()
    told |= ({"dense": asdict(dense)} if dense is not None else {}) | ({"levels": levels} if levels else {})
    told = json.loads(json.dumps(told))
    if (folder / CARD).is_file():
        found = open_features(folder)
        _same(folder, found.card.get("told"), told)
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0):
            table = _Table(folder, told)
            start = table.records
            waiting = prefetched(lambda index: _taken(reader[start + index], take), len(reader) - start, workers)
            policy = replace(FG_CLIP, enlarge=enlarge)
            while chunk := list(islice(waiting, batch)):
                shown = [each for each, _ in chunk if each is not None]
                images = _embedded(clip, shown, dense or policy) if shown else None
                table.add(clip, shown, images, len(chunk), sum(described for _, described in chunk))
                if on_progress is not None:
                    on_progress(table.records, len(reader))
            table.finish(clip.joint_dim, clip.dim - clip.joint_dim, captions)
    except Timeout as error:
        raise InputError(
            f"Another run is filling {str(folder)!r} with embeddings. Wait for it, or choose another folder."
        ) from error
    except OSError as error:
        raise CloseupError(
            f"Cannot keep embeddings in {folder}: {error.strerror or error}. What is whole there stays; free some "
            "space or choose another folder, then start again."
        ) from error
    return open_features(folder)


def _taken(record: Record, take: Callable[[Record], Shown | None]) -> tuple[Shown | None, int]:
    return take(record), len(record.descriptions)


def _same(folder: Path, before: object, now: Mapping[str, Any]) -> None:
    if before == now:
        return
    past = before if isinstance(before, dict) else {}
    changed = ", ".join(name for name in {**now, **past} if past.get(name) != now.get(name))
    raise InputError(f"{str(folder)!r} holds embeddings made with another {changed}. Choose another folder.")


class _Table:
    """Files that grow by whole batches; ``begun.json`` tells how much of them is whole."""

    def __init__(self, folder: Path, told: Mapping[str, Any]) -> None:
        self._folder, self._told = folder, told
        self.records = self.pictures = self.items = self.described = 0
        self._places: dict[str, int] = {}
        self._bytes = dict.fromkeys((IMAGES, TEXTS, ITEMS, WORDS), 0)
        if (folder / BEGUN).is_file():
            try:
                self._resume(json.loads((folder / BEGUN).read_text(encoding="utf-8")))
            except (ValueError, KeyError) as error:
                raise DataError(
                    f"{folder / BEGUN} cannot be read ({error}). Delete {str(folder)!r}, and make it anew."
                ) from error
        elif any(not path.name.startswith(".") for path in folder.iterdir()):
            raise InputError(f"{str(folder)!r} holds something else. Choose another folder for embeddings.")
        else:
            self._tell()
        for name, size in self._bytes.items():
            with (folder / name).open("ab") as file:
                if file.tell() < size:
                    raise DataError(f"{folder / name} is cut short. Delete {str(folder)!r}, and make it anew.")
                file.truncate(size)

    def _resume(self, begun: dict[str, Any]) -> None:
        _same(self._folder, begun["told"], self._told)
        self.records, self.pictures, self.items = begun["records"], begun["pictures"], begun["items"]
        self.described = begun["described"]
        self._bytes = begun["bytes"]
        written = (self._folder / WORDS).read_bytes()[: self._bytes[WORDS]].decode()
        self._places = {json.loads(line): row for row, line in enumerate(written.splitlines())}

    @torch.no_grad()
    def add(self, clip: Clip, shown: list[Shown], images: Embeddings | None, records: int, described: int) -> None:
        """Append what a batch of records shows, with its embeddings; they have so many described regions in all."""
        rows = np.cumsum([self.pictures, *(1 if each.boxes is None else len(each.boxes) for each in shown)])
        told = [
            (int(first) + place, texts) for first, each in zip(rows, shown, strict=False) for place, texts in each.items
        ]
        new = list(dict.fromkeys(text for _, texts in told for text in texts if text not in self._places))
        parts: dict[str, bytes] = dict.fromkeys(self._bytes, b"")
        if images is not None:
            parts[IMAGES] = _half(images)
        if new:
            parts[TEXTS] = _half(clip.encode_text(new, normalize=False))
            parts[WORDS] = "".join(f"{json.dumps(text)}\n" for text in new).encode()
            self._places |= {text: len(self._places) + row for row, text in enumerate(new)}
        items = [[row, *(self._places[text] for text in texts)] for row, texts in told]
        parts[ITEMS] = np.asarray(items, dtype=np.int32).tobytes()
        for name, part in parts.items():
            with (self._folder / name).open("ab") as file:
                file.write(part)
                file.flush()
                os.fsync(file.fileno())
            self._bytes[name] += len(part)
        self.records, self.pictures, self.items = self.records + records, int(rows[-1]), self.items + len(items)
        self.described += described
        self._tell()

    def _tell(self) -> None:
        state = {"records": self.records, "pictures": self.pictures, "items": self.items, "bytes": self._bytes}
        write_json(self._folder / BEGUN, {**state, "described": self.described, "told": self._told})

    def finish(self, dim: int, details: int, captions: int) -> None:
        """Write the card, by which the folder is finished; a warning where regions were left out.

        Raises:
            DataError: there is nothing in it.
        """
        few = f"have fewer than {captions - 1} wrong captions"
        if not self.items and self.described:
            raise DataError(f"All {self.described} described regions {few}. Ask for fewer with --wrong.")
        if not self.items:
            raise DataError("No record has a caption to learn from. Give records with described regions or captions.")
        left_out = self.described - self.items if captions > 1 else 0
        if left_out:
            warnings.warn(
                f"{left_out} of {self.described} described regions {few} and are left out; --wrong asks for fewer.",
                stacklevel=2,
            )
        sizes = {
            "dim": dim,
            **({"details": details} if details else {}),
            "pictures": self.pictures,
            "texts": len(self._places),
            "items": self.items,
        }
        about = {"captions": captions, "records": self.records, "left_out": left_out, "told": self._told}
        write_json(self._folder / CARD, {**sizes, **about})
        (self._folder / BEGUN).unlink()


@torch.no_grad()
def _embedded(clip: Clip, shown: list[Shown], how: Dense | CropPolicy) -> Embeddings:
    boxes = [each.boxes for each in shown if each.boxes is not None]
    if not boxes:
        return clip.encode_image(torch.stack([clip.preprocess(each.picture)[0] for each in shown]))
    pictures = [each.picture for each in shown]
    if isinstance(how, CropPolicy):
        return torch.cat(clip.encode_regions(pictures, boxes=boxes, how="crop", crop=how, normalize=False))
    return torch.cat(clip.encode_regions(pictures, boxes=boxes, how="dense", size=how.size, normalize=how.unit))


def _half(embeddings: Embeddings) -> bytes:
    half = embeddings.half()
    if not bool(half.isfinite().all()):
        most = float(embeddings.abs().max())
        raise DataError(
            f"Embeddings are kept in half precision, and here is a number as large as {most:g}, or none at all. Leave "
            "levels with such numbers out, or look for what is wrong with the model."
        )
    return half.cpu().numpy().tobytes()
