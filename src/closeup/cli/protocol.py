"""The verb ``protocol``: open-vocabulary detection's files and words, made of COCO's or LVIS's own annotations."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from closeup.cli.fields import Flag
from closeup.cli.files import check_folder
from closeup.cli.output import show, show_json, table
from closeup.data.atomic import replacing
from closeup.data.coco_json import CocoJson, Entry
from closeup.data.open_vocabulary import Document, OpenVocabulary, ov_coco, ov_lvis
from closeup.errors import InputError


@dataclass(frozen=True)
class ProtocolOptions:
    """What all protocols are told alike."""

    file: Positional[Path]
    """The official annotation file."""

    out: Path
    """The folder for what is made: FILE_base.json to train on, and base.txt, novel.txt and all.txt, a word a line."""

    json: Flag = False
    """Print one json document with the words, the counts and the names of the files."""


@dataclass(frozen=True)
class OvCoco(ProtocolOptions):
    """Make the files of OV-COCO: 48 base classes to learn from boxes, 17 novel ones to find by their words alone.

    Of COCO's 80 classes the other 15 take no part. FILE_base.json holds boxes of base classes alone, FILE_all.json
    those of all 65, to evaluate on. Pictures without such a box are left out.

        closeup protocol ov-coco coco/annotations/instances_train2017.json --out coco/annotations
        closeup protocol ov-coco coco/annotations/instances_val2017.json --out coco/annotations
        closeup train fvit --images coco:coco/annotations/instances_train2017_base.json --out my-detector
        closeup evaluate detection --detector my-detector --data coco:coco/annotations/instances_val2017_all.json
    """


@dataclass(frozen=True)
class OvLvis(ProtocolOptions):
    """Make the file of OV-LVIS: common and frequent classes to learn from boxes, rare ones to find by words alone.

    They are 866 and 337 in LVIS v1. FILE_base.json is the file without boxes of rare classes, and without pictures that
    have no others; all classes stay. Evaluation is on the official file as it is.

        closeup protocol ov-lvis coco/annotations/lvis_v1_train.json --out coco/annotations
        closeup train fvit --images lvis:coco/annotations/lvis_v1_train_base.json --preset paper-lvis --out my-detector
        closeup evaluate detection --detector my-detector --data lvis:coco/annotations/lvis_v1_val.json --masks
    """


Options = {"ov-coco": OvCoco, "ov-lvis": OvLvis}

MAKERS: dict[type[ProtocolOptions], tuple[str, Callable[[CocoJson], OpenVocabulary]]] = {
    OvCoco: ("coco", ov_coco),
    OvLvis: ("lvis", ov_lvis),
}
"""The kind of data set that a protocol makes, and what makes it."""


def run(options: ProtocolOptions) -> int:
    """Read, filter, write."""
    check_folder(options.out)
    kind, make = MAKERS[type(options)]
    file = CocoJson.read(options.file)
    made = make(file)
    documents = {options.out / f"{file.path.stem}_base.json": made.base_boxes}
    if made.all_boxes is not None:
        documents[options.out / f"{file.path.stem}_all.json"] = made.all_boxes
    words = {"base.txt": made.base, "novel.txt": made.novel, "all.txt": made.names}
    lists = {options.out / name: listed for name, listed in words.items()}
    _write(documents, lists)
    rows = [_count(path, document) for path, document in {file.path: file.document, **documents}.items()]
    lines = [f"{kind}:{path}" for path in documents]
    if options.json:
        told = {"base": made.base, "novel": made.novel, "files": rows, "read_as": lines}
        show_json({**told, "written": [*documents, *lists]})
        return 0
    show(
        table(list(rows[0]), [list(row.values()) for row in rows]),
        f"{len(made.base)} base and {len(made.novel)} novel classes.",
        *(f"Written: {path}" for path in (*documents, *lists)),
        f"Read it with --images or --data '{lines[0]}'; '?images=FOLDER' after it says where the pictures are.",
    )
    return 0


def _write(documents: Mapping[Path, Document], lists: Mapping[Path, Sequence[str]]) -> None:
    """Write all files or none: each takes its place only when the last is written."""
    for path in (*documents, *lists):
        if path.is_dir():
            raise InputError(f"--out {path.parent}: {path} is a folder, where a file is to be. Choose another folder.")
    with ExitStack() as stack:
        for path, document in documents.items():
            text = json.dumps(document)
            stack.enter_context(replacing(path)).write_text(text, encoding="utf-8")
        for path, words in lists.items():
            text = "".join(f"{word}\n" for word in words)
            stack.enter_context(replacing(path)).write_text(text, encoding="utf-8")


def _count(path: Path, document: Entry) -> dict[str, str | int]:
    annotations = document["annotations"]
    return {
        "file": path.name,
        "images": len(document["images"]),
        "boxes": len(annotations),
        "classes": len(document["categories"]),
        "classes with boxes": len({row["category_id"] for row in annotations}),
    }
