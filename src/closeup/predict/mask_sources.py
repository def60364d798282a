"""Where the masks of pictures come from: a trained proposer, files, a checkpoint of transformers, or the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import PIL.Image
import torch

from closeup.data.map_regions import with_map_regions
from closeup.data.record import Record
from closeup.data.spec import read_numbers, split_spec
from closeup.errors import DataError, InputError
from closeup.heads.folder import packaged_heads
from closeup.heads.mask_proposer import MaskProposer, load_mask_proposer
from closeup.models.checkpoint import HEAD
from closeup.predict.hf_masks import open_hf_masks
from closeup.predict.mask_files import FoundMasks, found_masks, read_masks
from closeup.predict.query_masks import check_threshold, query_masks
from closeup.predict.region_file import RegionFile
from closeup.predict.segment_masks import THRESHOLD
from closeup.regions.propose import propose

FORMS = (
    "Give truth (the data set's own masks), found (what closeup propose finds), the folder or name of a trained "
    "proposer of masks, hf:NAME for a checkpoint of transformers, a COCO file, or a folder with a file of masks a "
    "photo."
)


@runtime_checkable
class MaskSource(Protocol):
    """Gives the masks of a picture: bool planes at the picture's own size, none empty, maybe none at all."""

    @property
    def name(self) -> str:
        """The line of text that opens it."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of the weights behind it; empty where it has none of its own."""
        ...

    def __call__(self, record: Record, picture: PIL.Image.Image) -> FoundMasks:
        """Return the masks of a record whose picture is given, upright and in RGB."""
        ...


def open_masks(line: str, *, device: str = "auto", precision: str = "auto") -> MaskSource:
    """Open the source that a line of text names.

    ``truth``, ``found`` (what ``regions.propose`` finds, untrained), the folder or name of a trained proposer of
    masks, ``hf:NAME`` (a checkpoint of transformers by name or folder), a COCO file of many photos, or a folder with a
    file of masks a photo (``mask_files.read_masks``). A
    proposer takes ``?threshold=0.4``, the probability above which a pixel is part of a mask; so do Mask2Former,
    MaskFormer and OneFormer; SAM and its like take the options of the pipeline, as ``?points_per_crop=16``.

    Raises:
        InputError: the line names nothing, or an option that there is not.
        DataError: a file is not what it should be.
        ModelError: a model that is unknown or cannot be fetched.
    """
    kind, name, options = split_spec(line.strip())
    if kind == "hf" and name:
        return open_hf_masks(line, name, options, device=device)
    path = Path(name).expanduser()
    if kind or not name:
        raise InputError(f"Masks from {line!r}: there is no such source. {FORMS}")
    if (path / HEAD).is_file() or (not path.exists() and name in packaged_heads()):
        proposer = load_mask_proposer(path, device=device, precision=precision)
        return ProposerMasks(line, proposer, **read_numbers(line, options, ("threshold",)))
    read_numbers(line, options, ())
    if name == "truth":
        return TruthMasks()
    if name == "found":
        return FoundInPicture()
    if path.is_dir():
        return MaskFolder(line, path)
    if path.is_file():
        return _coco(line, path)
    raise InputError(f"Masks from {line!r}: no such file, folder or proposer. {FORMS}")


@dataclass(frozen=True, slots=True)
class TruthMasks:
    """The masks of the record itself, or what its label map shows, a region a label: an oracle."""

    name: str = "truth"
    fingerprint: str = ""

    def __call__(self, record: Record, picture: PIL.Image.Image) -> FoundMasks:
        """Return the record's masks; DataError where it has none."""
        known = labelled(record)
        return found_masks(known.masks, (picture.height, picture.width), f"record {record.id!r}")


@dataclass(frozen=True, slots=True)
class FoundInPicture:
    """What stands out in the picture itself, found without labels or training."""

    name: str = "found"
    fingerprint: str = ""

    def __call__(self, record: Record, picture: PIL.Image.Image) -> FoundMasks:
        """Return the masks of what is found."""
        return found_masks(propose(picture).masks[:], (picture.height, picture.width), f"record {record.id!r}")


@dataclass(frozen=True, slots=True)
class MaskFolder:
    """A file of masks a photo, under the name of the record or of its file."""

    name: str
    folder: Path
    fingerprint: str = ""

    def __call__(self, record: Record, picture: PIL.Image.Image) -> FoundMasks:
        """Return what the folder has; DataError where it has no file for the picture."""
        return read_masks(self.folder, names_of(record), (picture.height, picture.width))


@dataclass(frozen=True, slots=True)
class CocoMasks:
    """A COCO file of many photos, which are known by the names of their files."""

    name: str
    file: RegionFile
    fingerprint: str = ""

    def __call__(self, record: Record, picture: PIL.Image.Image) -> FoundMasks:
        """Return the annotations' masks; DataError where the file does not list the picture, or has only boxes."""
        called = Path(record.image).name if isinstance(record.image, str | Path) else record.id
        found = self.file.listed(called)
        if found.masks is None:
            raise DataError(f"{self.name}: the annotations of {called!r} have no masks.")
        return found_masks(found.masks, (picture.height, picture.width), f"{called} in {self.name}")


@dataclass(frozen=True, slots=True, eq=False)
class ProposerMasks:
    """A trained proposer of masks; the score is how sure it is that there is one of the words it learned."""

    name: str
    proposer: MaskProposer
    threshold: float = THRESHOLD

    def __post_init__(self) -> None:
        check_threshold(self.threshold)

    @property
    def fingerprint(self) -> str:
        """That of the proposer."""
        return self.proposer.fingerprint

    @torch.inference_mode()
    def __call__(self, record: Record, picture: PIL.Image.Image) -> FoundMasks:
        """Return the masks of all queries that have a pixel."""
        del record
        head, clip = self.proposer.head, self.proposer.clip
        canvas, placement = clip.preprocess(picture, policy="longest-pad-corner", size=self.proposer.size)
        found = head.find(canvas[None].to(clip.device))
        words = head.logits(found.embeddings[0], head.words)
        return query_masks(
            found.masks[0],
            1 - words.softmax(dim=1)[:, -1],
            canvas=placement.canvas,
            content=(round(placement.content[3]), round(placement.content[2])),
            size=(picture.height, picture.width),
            threshold=self.threshold,
        )


def labelled(record: Record) -> Record:
    """Return a record with masks: its own, or those of its label map; DataError where it has neither."""
    if record.masks is not None:
        return record
    if record.label_map is None:
        raise DataError(f"Record {record.id!r} has neither masks nor a label map. Give a data set that has them.")
    return with_map_regions(record)


def names_of(record: Record) -> list[str]:
    """Return the names under which a folder may keep something about a record: its id, and its file's stem."""
    names = [record.id, Path(record.id).with_suffix("").as_posix()]
    if isinstance(record.image, str | Path):
        names.append(Path(record.image).stem)
    return list(dict.fromkeys(names))


def _coco(line: str, path: Path) -> CocoMasks:
    file = RegionFile(path)
    if not file.many:
        raise DataError(
            f"{path}: does not say which photo a mask belongs to. Give a COCO file with its 'images', or a folder with "
            "a file a photo."
        )
    return CocoMasks(line, file)
