"""The tables of fine-grained matching: ranks among wrong captions, and what is left of retrieval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from closeup.data.fgovd import BENCHMARKS
from closeup.evaluate import Retrieval
from closeup.match.matcher import Matcher
from closeup.predict.benchmarks_report import BenchmarksReport
from closeup.predict.fine_grained_report import FineGrainedReport
from closeup.reproduce.finegrained_paper import (
    COSINE_ROW,
    FINE,
    IMAGE_R1,
    KINDS,
    MATCHED,
    RANK,
    SPLIT_RANKS,
    TEXT_R1,
)
from closeup.reproduce.measure import Measurements
from closeup.reproduce.result import Row
from closeup.reproduce.trainings import RAW

HARD = "1_attributes"
FAMILIES = ("color", "material", "pattern", "transparency")
HARD_RANK, KEPT = "mean rank, Hard", "R@1, mean of both directions"
LOST = 1.0
"""Points of R@1 that a matcher may lose and still be said to keep retrieval."""

ADAPTED = "tiny-clipself"
MATCHER_ROW, LOOKING_ROW = "matcher", "matcher with levels"
DETECTOR_ROW = "detector"

Found = TypeVar("Found")
Rows = Mapping[str, Sequence[Matcher | None]]
"""The matchers of each row, one a seed; None is the cosine."""
Table = tuple[list[Row], list[str]]


def matched(measured: Measurements, rows: Rows) -> Table:
    """Return the paper's first table: the mean over the benchmarks' mean ranks, and retrieval of whole pictures."""
    ranks, recalls = measured_rows(measured, rows)
    found: list[Row] = []
    for name in rows:
        columns = {RANK: [report.mean_rank for report in ranks[name]], **_recalls(recalls[name])}
        found += [
            Row(name, metric, tuple(values), MATCHED.get((name, metric)), digits=2 if metric == RANK else 1)
            for metric, values in columns.items()
        ]
    return found, _said_of_matchers(found)


def by_benchmark(measured: Measurements, rows: Rows) -> Table:
    """Return the mean rank of each benchmark, in the paper's order of them."""
    ranks = _each_seed(measured.described(RAW, _named(rows)), rows)
    found = [
        Row(
            name,
            BENCHMARKS[benchmark].title,
            tuple(report.reports[benchmark].ranks().mean for report in reports),
            SPLIT_RANKS.get((name, BENCHMARKS[benchmark].title)),
            digits=2,
        )
        for name, reports in ranks.items()
        for benchmark in BENCHMARKS
    ]
    asked = next(iter(ranks.values()))[0].reports
    chances = ", ".join(f"{BENCHMARKS[name].title} {report.ranks().chance:g}" for name, report in asked.items())
    return found, [f"Mean rank by chance: {chances}.", *_fewer(asked), *_said_of_hard(found)]


def _fewer(asked: Mapping[str, FineGrainedReport]) -> list[str]:
    told = [
        f"{BENCHMARKS[name].title} {report.negatives} and not {BENCHMARKS[name].negatives}"
        for name, report in asked.items()
        if report.negatives < BENCHMARKS[name].negatives
    ]
    return [f"The world has fewer wrong values than FG-OVD: {', '.join(told)}."] if told else []


def kept(measured: Measurements, rows: Rows, reference: str) -> Table:
    """Return the rank on Hard and R@1 of each row, and which rows have most of the reference's gain for little."""
    ranks, recalls = measured_rows(measured, rows)
    found: list[Row] = []
    for name in rows:
        hard = tuple(report.reports[HARD].ranks().mean for report in ranks[name])
        found += [
            Row(name, HARD_RANK, hard, digits=2),
            Row(name, KEPT, tuple(_first(recall) for recall in recalls[name])),
        ]
    return found, _said_of_keeping(found, reference)


def inside(measured: Measurements, rows: Rows) -> Table:
    """Return the ranks of Hard and of each family, and R@1, of matchers that see embeddings alone and of others."""
    ranks, recalls = measured_rows(measured, rows)
    found: list[Row] = []
    for name in rows:
        found += [
            Row(
                name,
                BENCHMARKS[benchmark].title,
                tuple(each.reports[benchmark].ranks().mean for each in ranks[name]),
                digits=2,
            )
            for benchmark in (HARD, *FAMILIES)
        ]
        found.append(Row(name, KEPT, tuple(_first(recall) for recall in recalls[name])))
    return found, _said_of_hard(found)


def shipped(measured: Measurements, matcher: Matcher, looking: Matcher) -> Table:
    """Return ranks, retrieval and twins by the cosine and by matchers, from crops and from an adapted dense map.

    The one that looks inside is asked about crops alone, by the CLIP that it looks into.
    """
    pair: dict[str, Matcher | None] = {COSINE_ROW: None, MATCHER_ROW: matcher}
    rows: list[Row] = []
    for place, model, how in (("crops", RAW, "crop"), (f"dense map of {ADAPTED}", ADAPTED, "dense")):
        asked = pair | ({LOOKING_ROW: looking} if how == "crop" else {})
        ranks, twins = measured.described(model, asked, how), measured.twins(model, asked, how)
        recalls = measured.retrieved(RAW, asked) if how == "crop" else {}
        for name in asked:
            row = f"{place}, {name}"
            rows += [
                Row(row, BENCHMARKS[benchmark].title, (report.ranks().mean,), digits=2)
                for benchmark, report in ranks[name].reports.items()
            ]
            rows += [
                Row(row, f"twins, {family}", (100 * report.ranks().top1,))
                for family, report in twins[name].reports.items()
            ]
            rows += [Row(row, KEPT, (_first(recalls[name]),))] if recalls else []
    return rows, []


def detector_or_clip(measured: Measurements, detector: str) -> Table:
    """Return the mean rank of each benchmark by crops, by dense maps and through a detector, and what it finds."""
    views = {
        f"crops, {RAW}": (RAW, "crop"),
        f"dense map, {RAW}": (RAW, "dense"),
        f"dense map, {ADAPTED}": (ADAPTED, "dense"),
    }
    rows = [
        Row(name, BENCHMARKS[benchmark].title, (report.ranks().mean,), digits=2)
        for name, (model, how) in views.items()
        for benchmark, report in measured.described(model, {COSINE_ROW: None}, how, few=True)[
            COSINE_ROW
        ].reports.items()
    ]
    for benchmark, report in measured.asked(detector).items():
        title, found = BENCHMARKS[benchmark].title, report.summary()
        named = {
            DETECTOR_ROW: ("mean_rank", 1, 2),
            f"{DETECTOR_ROW}, what it finds": ("mean_rank_found", 1, 2),
            f"{DETECTOR_ROW}, mAP in percent": ("ap", 100, 1),
        }
        rows += [
            Row(name, title, (unit * float(value),), SPLIT_RANKS.get((name, title)), digits=digits)
            for name, (figure, unit, digits) in named.items()
            if (value := found[figure]) is not None
        ]
    return rows, []


def measured_rows(
    measured: Measurements, rows: Rows
) -> tuple[dict[str, list[BenchmarksReport]], dict[str, list[Retrieval]]]:
    """Return ranks and retrieval of every row, one a seed, of one pass over the pictures."""
    named = _named(rows)
    return (
        _each_seed(measured.described(RAW, named), rows),
        _each_seed(measured.retrieved(RAW, named), rows),
    )


def _named(rows: Rows) -> dict[str, Matcher | None]:
    return {f"{row} {seed}": matcher for row, group in rows.items() for seed, matcher in enumerate(group)}


def _each_seed(found: Mapping[str, Found], rows: Rows) -> dict[str, list[Found]]:
    return {row: [found[f"{row} {seed}"] for seed in range(len(group))] for row, group in rows.items()}


def _recalls(found: Sequence[Retrieval]) -> dict[str, list[float]]:
    directions = {"image to text": "image_to_text", "text to image": "text_to_image"}
    return {
        f"{told} R@{k}": [100 * getattr(each, name)[place] for each in found]
        for told, name in directions.items()
        for place, k in enumerate(found[0].ks)
    }


def _first(found: Retrieval) -> float:
    return 50 * (found.image_to_text[0] + found.text_to_image[0])


def _said_of_matchers(rows: Sequence[Row]) -> list[str]:
    means = {(row.name, row.metric): row.mean for row in rows}
    told = []
    for kind in KINDS:
        fine = f"{kind}, {FINE}"
        if (fine, RANK) not in means:
            continue
        rank, text, image = (means[fine, metric] - means[COSINE_ROW, metric] for metric in (RANK, TEXT_R1, IMAGE_R1))
        told.append(
            f"{kind}, fine-tuned, against the cosine: rank {rank:+.2f}, R@1 {text:+.1f} and {image:+.1f} points."
        )
    return told


def _said_of_hard(rows: Sequence[Row]) -> list[str]:
    hard = {row.name: row.mean for row in rows if row.metric == BENCHMARKS[HARD].title}
    start = hard[COSINE_ROW]
    if not start > 1:
        return ["On Hard the cosine leaves nothing to gain."]
    chance = (BENCHMARKS[HARD].negatives + 2) / 2
    told = [f"On Hard the cosine stands {(start - 1) / (chance - 1):.0%} of the way from the best rank to chance."]
    for name, mean in hard.items():
        if name != COSINE_ROW and mean < start:
            told.append(f"{name}: {(start - mean) / (start - 1):.0%} of the cosine's distance to 1 on Hard is gone.")
    return told


def _said_of_keeping(rows: Sequence[Row], reference: str) -> list[str]:
    means = {(row.name, row.metric): row.mean for row in rows}
    start, recall = means[COSINE_ROW, HARD_RANK], means[COSINE_ROW, KEPT]
    gain = start - means[reference, HARD_RANK]
    told = [f"{reference}: {gain:+.2f} ranks gained on Hard, R@1 {means[reference, KEPT] - recall:+.1f} points."]
    if not gain > 0:
        return told
    for name in dict.fromkeys(row.name for row in rows):
        if name in (COSINE_ROW, reference):
            continue
        share, lost = (start - means[name, HARD_RANK]) / gain, recall - means[name, KEPT]
        held = "keeps retrieval" if lost <= LOST else "does not keep retrieval"
        told.append(f"{name}: {share:.0%} of that gain, R@1 {-lost:+.1f} points: {held}.")
    return told
