"""The verb ``concepts``: what the pictures of a data set are described with, as a list of words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from closeup.cli.fields import Flag, Maybe
from closeup.cli.files import check_folder, counted
from closeup.cli.output import show, show_json, table
from closeup.data.captions import read_captions
from closeup.data.registry import open_reader
from closeup.errors import DataError, InputError
from closeup.text.concepts import ConceptMiner, Form, write_concepts

SHOWN = 20
"""Concepts that are listed on the terminal."""


@dataclass(frozen=True)
class Options:
    """Mine concepts from captions: the nouns and noun phrases that enough pictures are described with.

    Each concept counts once a picture, whatever the number of its captions, and a plural as its singular. The list is
    what RegionCLIP learns regions from, and a words file for every other verb.

        closeup concepts coco-captions:/data/coco --min-count 100 --out concepts.txt
        closeup concepts captions_train2017.json --form phrases --out concepts.csv
        closeup concepts captions.txt --min-count 5 --json
        closeup concepts world?count=2000 --split train --min-count 10 --out world-concepts.txt
    """

    captions: Positional[str]
    """A data set with captions such as "coco-captions:/data/coco", or a file: a sentence a line (.txt), picture name
    and sentence a line (.tsv), or json (COCO's form, or an object of picture names)."""

    out: Maybe[Path] = None
    """The list: a concept a line, the commonest first; a name that ends in .csv also gets the counts."""

    min_count: int = 100
    """The fewest pictures that name a concept; 100 in RegionCLIP."""

    form: Form = "compounds"
    """What a noun phrase gives: its last noun ("nouns"), also with the nouns before it ("compounds": stop sign), also
    with the adjectives before those ("phrases": red stop sign)."""

    tagger: str = "hanta"
    """What tells nouns from other words: "hanta", or "spacy:MODEL" for a spaCy pipeline that is installed."""

    split: Maybe[str] = None
    """The split of a data set: train, val or test."""

    json: Flag = False
    """Print one json document with all concepts and their counts."""


def run(options: Options) -> int:
    """Read, count, write."""
    miner = ConceptMiner(form=options.form, tagger=options.tagger)
    if options.min_count < 1:
        raise InputError(f"--min-count {options.min_count}: a concept is named by at least one picture.")
    if options.out is not None:
        if options.out.is_dir():
            raise InputError(f"--out {options.out}: this is a folder. Name a file for the list.")
        check_folder(options.out.parent)
    total, captions = _captions(options.captions, options.split)
    with counted("reading captions") as tell:
        concepts = miner(captions, min_count=options.min_count, on_progress=lambda done: tell(done, total))
    if not concepts:
        raise DataError(
            f"No concept is named by {options.min_count} of the {total} pictures. Lower --min-count, or give more."
        )
    if options.out is not None:
        write_concepts(concepts, options.out)
    if options.json:
        listed = [concept._asdict() for concept in concepts]
        show_json({"pictures": total, "min_count": options.min_count, "concepts": listed, "written": options.out})
        return 0
    show(
        table(["concept", "pictures"], concepts[:SHOWN]),
        f"{len(concepts):,} concepts named by at least {options.min_count:,} of {total:,} pictures.",
        *([] if options.out is None else [f"Written: {options.out}"]),
    )
    return 0


def _captions(source: str, split: str | None) -> tuple[int, Iterator[Sequence[str]]]:
    """Return the number of pictures, and the captions of each."""
    path = Path(source).expanduser()
    if path.is_file():
        found = _of_file(path)
        return len(found), iter(found)
    if path.suffix.lower() in (".txt", ".json", ".tsv", ".csv") and ":" not in source:
        raise InputError(
            f"{source}: no such file. Give a file of captions, or a data set such as coco-captions:FOLDER."
        )
    reader = open_reader(source, split)
    if not len(reader) or not any(reader[index].captions for index in range(min(len(reader), 100))):
        raise DataError(f"{source} has no captions. Give a data set that has them, such as coco-captions:FOLDER.")
    return len(reader), (reader[index].captions for index in range(len(reader)))


def _of_file(path: Path) -> list[Sequence[str]]:
    kind = path.suffix.lower()
    if kind not in (".json", ".tsv", ".csv"):
        try:
            return [(line,) for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 text ({error}).") from error
    return list(read_captions(path).values())
