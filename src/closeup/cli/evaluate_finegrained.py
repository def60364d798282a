"""The part ``finegrained`` of the verb ``evaluate``: whether right captions score above nearly right ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from rich.console import RenderableType
from tyro.conf import arg

from closeup.cli.choices import Encoder
from closeup.cli.evaluate_described_objects import run_detector
from closeup.cli.fields import Flag, Maybe
from closeup.cli.files import check_report, counted
from closeup.cli.matcher import MatcherOptions
from closeup.cli.model import ModelOptions
from closeup.cli.output import show, show_json, table
from closeup.cli.words import read_templates
from closeup.data.atomic import write_json
from closeup.data.benchmarks import open_benchmarks
from closeup.data.fgovd import BENCHMARKS, FgOvd
from closeup.data.record import Reader
from closeup.data.registry import open_reader
from closeup.errors import InputError
from closeup.evaluate import Retrieval
from closeup.match import Matcher
from closeup.models import Clip
from closeup.predict.benchmarks_report import BenchmarksReport
from closeup.predict.evaluate_benchmarks import CROPS, evaluate_benchmarks, negatives_of
from closeup.predict.matching import wants_unit, whole_seen_by
from closeup.predict.whole_image import encode_whole, retrievals

TIE_RULE = "A wrong caption that scores the same as the right one ranks before it."


@dataclass(frozen=True)
class FineGrained:
    """Measure whether a region's right caption scores above captions that are wrong in a detail (FG-OVD, FG-CLIP).

    Each described region is compared with its right caption and N wrong ones; the rank of the right one is 1 at best
    and N + 1 at worst. The mean over FG-OVD's eight benchmarks is what FG-CLIP's paper calls FG mean rank.

        closeup evaluate finegrained --data world?count=200
        closeup evaluate finegrained --data fgovd:FG-OVD/benchmarks?images=/data/coco --model ViT-B-16/openai
        closeup evaluate finegrained --data world --matcher my-matcher --retrieval world?count=500
        closeup evaluate finegrained --data negatives/1_attributes.json --how dense --route value --json
        closeup evaluate finegrained --data world?count=100 --detector tiny-fvit
        closeup evaluate finegrained --data world?negatives=color --how masked-crop --scale 1.5 --out report.json
    """

    data: str
    """The benchmarks: "fgovd:FOLDER" for all whose files the folder holds, with "?split=1_attributes" for one of them,
    and "?images=FOLDER" for COCO's pictures; "world" for all eight on the embedded world, with "?negatives=color" for
    one; or a json file of FG-OVD's form, as closeup negatives writes it."""

    negatives: Maybe[int] = None
    """Wrong captions of a region that take part, the first N; each benchmark's own N unless given. Regions with fewer
    are left out."""

    detector: Maybe[str] = None
    """A detector to ask for the captions, instead of giving a CLIP the true boxes: the folder of one, a name that
    ships, or "hf:google/owlvit-base-patch16", an OWL-ViT or OWLv2 of transformers. FG-OVD's own protocol."""

    retrieval: Maybe[str] = None
    """A data set with captions of whole pictures, such as "karpathy:/data/coco?split=test" or "world?count=500": recall
    at 1, 5 and 10, from texts to pictures and back, by the same matcher."""

    limit: Maybe[int] = None
    """Only the first so many records of each benchmark, and of --retrieval."""

    how: Encoder = "crop"
    """The region encoder: cut regions out, as FG-CLIP does, masked or not, pool the dense map, or give each mask a
    class token."""

    scale: float = 1.0
    """Factor by which crops are enlarged about their centre."""

    templates: str = "name"
    """The sentences around a caption: "name" leaves captions as they are; a set such as "simple", or a file."""

    workers: int = 2
    """Threads that read records ahead."""

    out: Maybe[Path] = None
    """A json file for the whole report, with the scores of every region."""

    json: Flag = False
    """Print the report, without single regions, as one json document instead of a table."""

    by: Annotated[MatcherOptions, arg(name="")] = field(default_factory=MatcherOptions)

    clip: Annotated[ModelOptions, arg(name="")] = field(default_factory=ModelOptions)


def run_finegrained(options: FineGrained) -> int:
    """Measure every benchmark, retrieval if it is asked for, and print the report."""
    _check(options)
    readers = open_benchmarks(options.data)
    negatives = _negatives(options, readers)
    pictures = _open_retrieval(options)
    templates = read_templates(options.templates)
    for reader in readers.values():
        if isinstance(reader, FgOvd) and len(reader):
            reader[0].load()  # so that a missing picture is told before a model is loaded
    if options.detector is not None:
        return run_detector(
            options.detector,
            readers,
            negatives,
            options.clip,
            limit=options.limit,
            workers=options.workers,
            out=options.out,
            json=options.json,
        )
    clip = options.clip.load()
    matcher = options.by.load(clip, options.how)
    with counted("ranking captions") as tell:
        report = evaluate_benchmarks(
            clip,
            readers,
            {"": matcher},
            negatives=negatives,
            how=options.how,
            scale=options.scale,
            route=options.clip.route,
            size=options.clip.size,
            templates=templates,
            limit=options.limit,
            workers=options.workers,
            on_progress=tell,
        )[""]
    found = None if pictures is None else _recall(clip, matcher, pictures, options)
    about: dict[str, Any] = {"data": options.data, "model": clip.name, "matcher": matcher.name if matcher else "cosine"}
    recall = None if found is None else {"data": options.retrieval, **found.summary()}
    if options.out is not None:
        write_json(options.out, {**about, **report.to_dict(), "retrieval": recall})
    written = [] if options.out is None else [options.out]
    if options.json:
        families = {name: each.families() for name, each in report.reports.items()}
        show_json({**about, **report.summary(), "families": families, "retrieval": recall, "written": written})
        return 0
    show(
        *rank_lines({"": report}),
        f"{options.data}, model {clip.name}, matcher {about['matcher']}. {TIE_RULE}",
        *([] if found is None else _recall_lines(found, str(options.retrieval))),
        *(f"Written: {path}" for path in written),
    )
    return 0


def rank_lines(reports: Mapping[str, BenchmarksReport]) -> Sequence[RenderableType]:
    """Return what is printed of the ranks: a row per benchmark and matcher, and the mean over benchmarks.

    The matchers' names stand in a column where there are several.
    """
    rows = [
        {**({"matcher": name} if len(reports) > 1 else {}), **row}
        for name, report in reports.items()
        for row in report.table()
    ]
    columns = [name.replace("_", " ") for name in rows[0]]
    lines: list[RenderableType] = [table(columns, [list(row.values()) for row in rows])]
    for name, report in reports.items():
        ranked = [each for each in report.ranked if each in BENCHMARKS]
        whose = f" of {name}" if len(reports) > 1 else ""
        if not report.ranked:
            lines.append("No region has as many wrong captions as are asked: nothing is ranked.")
        if len(ranked) < 2:
            continue
        lines.append(
            f"FG mean rank{whose}: {report.mean_rank:.4f}, over {len(ranked)} of the paper's eight benchmarks."
        )
    return lines


def _check(options: FineGrained) -> None:
    options.clip.check()
    for name, least in (("limit", 1), ("negatives", 1), ("workers", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise InputError(f"--{name} {value}: give at least {least}.")
    if not options.scale > 0 or (options.scale != 1 and options.how not in CROPS):
        raise InputError(f"--scale {options.scale}: give a factor above 0, for crops alone (--how crop).")
    if options.detector is not None:
        usual = FineGrained(options.data)
        for name in ("retrieval", "how", "scale", "templates", "by"):
            if getattr(options, name) != getattr(usual, name):
                told = "matcher" if name == "by" else name
                raise InputError(
                    f"--{told} is of a CLIP and true boxes, and --detector finds its own. Drop one of them."
                )
    if options.out is not None:
        check_report(options.out)


def _negatives(options: FineGrained, readers: Mapping[str, Reader]) -> dict[str, int]:
    if options.negatives is not None:
        return dict.fromkeys(readers, options.negatives)
    unknown = [name for name in readers if name not in BENCHMARKS]
    if unknown:
        raise InputError(
            f"--data {options.data}: {unknown[0]!r} is none of FG-OVD's benchmarks. Say with --negatives how many wrong"
            " captions of a region take part."
        )
    return negatives_of(readers)


def _open_retrieval(options: FineGrained) -> Reader | None:
    if options.retrieval is None:
        return None
    reader = open_reader(options.retrieval)
    if not len(reader) or not reader[0].captions:
        raise InputError(
            f"--retrieval {options.retrieval}: its pictures have no captions. Give some that do, as karpathy:FOLDER."
        )
    return reader


def _recall(clip: Clip, matcher: Matcher | None, reader: Reader, options: FineGrained) -> Retrieval:
    with counted("encoding pictures") as tell:
        images = encode_whole(
            whole_seen_by(matcher, clip),
            reader,
            limit=options.limit,
            workers=options.workers,
            normalize=wants_unit(matcher),
            on_progress=tell,
        )
    return retrievals(clip, images, {"": matcher})[""]


def _recall_lines(found: Retrieval, data: str) -> Sequence[RenderableType]:
    rows = [["text to image", *found.text_to_image], ["image to text", *found.image_to_text]]
    return [table(["retrieval", *(f"R@{k}" for k in found.ks)], rows), f"Retrieval on {data}, by the same matcher."]
