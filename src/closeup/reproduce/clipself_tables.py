"""CLIPSelf's tables: crops against the map (1), regions (2), window attention (7), forgetting, and ablations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from closeup.predict.forgetting_report import Figure
from closeup.predict.region_report import RegionReport
from closeup.reproduce.clipself_models import KEPT, PATCHES, PROPOSALS
from closeup.reproduce.clipself_paper import (
    BOXES,
    CROPS,
    METRICS,
    PATCHES_MAP,
    PROPOSALS_MAP,
    RAW_MAP,
    STUFF,
    THINGS,
)
from closeup.reproduce.measure import Measurements, classification, first_hits, top
from closeup.reproduce.result import Paper, Row
from closeup.reproduce.trainings import ABLATION_SIZE, RAW

CROP_ROW = "crops, raw"
RAW_ROW = "map, raw"
PATCHES_ROW = "map, CLIPSelf with image patches"
PROPOSALS_ROW = "map, CLIPSelf with proposals"
KEPT_ROW = "map, CLIPSelf with both, whole images kept"

ROWS = {RAW_ROW: RAW, PATCHES_ROW: PATCHES, PROPOSALS_ROW: PROPOSALS, KEPT_ROW: KEPT}
PAPERS: Mapping[str, Mapping[str, Paper]] = {
    RAW_ROW: RAW_MAP,
    PATCHES_ROW: PATCHES_MAP,
    PROPOSALS_ROW: PROPOSALS_MAP,
}

WHOLE = "zero-shot"
RETRIEVED = "retrieval R@1"


def regions(measured: Measurements, models: Mapping[str, str]) -> tuple[list[Row], list[str]]:
    """Return Table 2: crops of the raw model, and the map of every model."""
    scale = measured.scale
    crops = measured.crops(RAW)
    rows = [
        Row(CROP_ROW, metric, (top(crops, "crop", shape, kind, k),), CROPS.get(metric))
        for metric, shape, kind, k in METRICS
        if shape == "boxes"
    ]
    for name, model in models.items():
        rows += map_rows(name, measured.dense(model, scale.size, scale.scenes), PAPERS.get(name, {}))
    return rows, _regions_findings(rows)


def map_rows(name: str, report: RegionReport, papers: Mapping[str, Paper]) -> list[Row]:
    """Return the row of one model's map, one figure per column of Table 2."""
    return [
        Row(name, metric, (top(report, "dense", shape, kind, k),), papers.get(metric))
        for metric, shape, kind, k in METRICS
    ]


def sizes(measured: Measurements, models: Mapping[str, str]) -> tuple[list[Row], list[str]]:
    """Return Table 1: top-1 on boxes of things by the size of the picture, beside crops."""
    crops = Row("crops, raw", "crop", (top(measured.crops(RAW), "crop", "boxes", "things"),), CROPS[BOXES])
    rows = [crops]
    for name, model in models.items():
        for size in measured.scale.sizes:
            report = measured.dense(model, size, measured.scale.trend_scenes)
            rows.append(Row(name, f"map, {size} px", (top(report, "dense", "boxes", "things"),)))
    return rows, [_trend(name, rows) for name in models]


def windows(measured: Measurements, models: Mapping[str, str]) -> tuple[list[Row], list[str]]:
    """Return Table 7: the raw model's map with attention inside windows, in the place of any training."""
    scale = measured.scale
    rows = map_rows("raw, attention over the whole map", measured.dense(RAW, scale.size, scale.scenes), RAW_MAP)
    rows += map_rows("raw, window attention", measured.dense(RAW, scale.size, scale.scenes, "native"), {})
    name, model = list(models.items())[-1]
    rows += map_rows(name, measured.dense(model, scale.size, scale.scenes), PAPERS.get(name, {}))
    found = {row.name: row.mean for row in rows if row.metric == BOXES}
    plain, windowed, learned = found.values()
    gained = (
        f"Windows bring {windowed - plain:+.1f} points on boxes without training, distillation {learned - plain:+.1f}."
    )
    return rows, [gained]


def forgetting(measured: Measurements, models: Mapping[str, str]) -> tuple[list[Row], list[str]]:
    """Return what each model gains on regions and loses on whole images, in the units of the other tables."""
    rows = gained_and_lost(measured, models)
    return rows, _forgetting_findings(rows, list(models))


def gained_and_lost(measured: Measurements, models: Mapping[str, str]) -> list[Row]:
    """Return regions, zero-shot accuracy and retrieval of each model, a row of five figures."""
    scale = measured.scale
    rows: list[Row] = []
    for name, model in models.items():
        report, whole = measured.dense(model, scale.size, scale.scenes), measured.whole(model, scale.close_ups)
        rows += [row for row in map_rows(name, report, {}) if row.metric in (BOXES, THINGS, STUFF)]
        rows += whole_rows(name, whole)
    return rows


def whole_rows(name: str, whole: Sequence[Figure]) -> list[Row]:
    """Return a model's figures of whole images: zero-shot accuracy and retrieval."""
    return [Row(name, WHOLE, (classification(whole),)), Row(name, RETRIEVED, (first_hits(whole),))]


def ablation(measured: Measurements, trained: Mapping[str, str], *, own_size: bool) -> tuple[list[Row], list[str]]:
    """Return one row per training of an ablation, at the ablations' size, or each at its own and at the scenes'."""
    scale = measured.scale
    rows: list[Row] = []
    for name, model in trained.items():
        report = measured.dense(model, ABLATION_SIZE, scale.trend_scenes)
        rows += [row for row in map_rows(name, report, {}) if row.metric in (BOXES, THINGS, STUFF)]
        if own_size:
            larger = measured.dense(model, scale.size, scale.trend_scenes)
            rows.append(Row(name, f"boxes, at {scale.size} px", (top(larger, "dense", "boxes", "things"),)))
    best = max((row for row in rows if row.metric == BOXES), key=lambda row: row.mean)
    return rows, [f"Best on boxes: {best.name}, {best.mean:.1f} %."]


def _regions_findings(rows: list[Row]) -> list[str]:
    found = {(row.name, row.metric): row.mean for row in rows}
    crop, findings = found[CROP_ROW, BOXES], []
    for name in (PATCHES_ROW, PROPOSALS_ROW, KEPT_ROW):
        if (name, BOXES) in found:
            boxes, things, stuff = (found[name, metric] for metric in (BOXES, THINGS, STUFF))
            findings.append(
                f"{name}: boxes {boxes - crop:+.1f} and thing masks {things - crop:+.1f} points against crops; "
                f"stuff masks {stuff - found[RAW_ROW, STUFF]:+.1f} points against the raw map."
            )
    if (PATCHES_ROW, BOXES) in found and (PROPOSALS_ROW, BOXES) in found:
        things = found[PROPOSALS_ROW, BOXES] - found[PATCHES_ROW, BOXES]
        stuff = found[PROPOSALS_ROW, STUFF] - found[PATCHES_ROW, STUFF]
        same = "as in the paper" if things > 0 > stuff else "unlike the paper (things up, stuff down)"
        findings.append(f"Proposals against patches: boxes {things:+.1f}, stuff masks {stuff:+.1f} points, {same}.")
    return findings


def _trend(name: str, rows: list[Row]) -> str:
    points = [row for row in rows if row.name == name]
    best = max(points, key=lambda row: row.mean)
    first, last = points[0], points[-1]
    return (
        f"{name}: {first.metric.removeprefix('map, ')} {first.mean:.1f} %, best at "
        f"{best.metric.removeprefix('map, ')} {best.mean:.1f} %, {last.metric.removeprefix('map, ')} {last.mean:.1f} %."
    )


def _forgetting_findings(rows: list[Row], names: list[str]) -> list[str]:
    found = {(row.name, row.metric): row.mean for row in rows}
    raw, findings = names[0], []
    for name in names[1:]:
        gained = found[name, BOXES] - found[raw, BOXES]
        lost = [found[raw, metric] - found[name, metric] for metric in (WHOLE, RETRIEVED)]
        findings.append(
            f"{name}: boxes {gained:+.1f} points; lost of whole images {lost[0]:.1f} points of zero-shot accuracy and "
            f"{lost[1]:.1f} of retrieval R@1."
        )
    if KEPT_ROW in names and PROPOSALS_ROW in names:
        plain, kept = (found[name, BOXES] - found[raw, BOXES] for name in (PROPOSALS_ROW, KEPT_ROW))
        if plain > 0:
            findings.append(f"Keeping whole images leaves {100 * kept / plain:.0f} % of the gain on boxes.")
    return findings
