"""RegionCLIP's tables: boxes named without training (4), regions and what is forgotten, and the losses."""

from __future__ import annotations

import math
from collections.abc import Mapping

from closeup.reproduce.clipself_paper import BOXES, STUFF, THINGS
from closeup.reproduce.clipself_tables import RETRIEVED, WHOLE, gained_and_lost, map_rows, whole_rows
from closeup.reproduce.detection_paper import (
    RAW_PROPOSED,
    RAW_TRUTH,
    REGIONCLIP_PROPOSED,
    REGIONCLIP_TRUTH,
)
from closeup.reproduce.measure import Measurements, top
from closeup.reproduce.regionclip_models import REGIONCLIP
from closeup.reproduce.result import Paper, Row
from closeup.reproduce.trainings import ABLATION_SIZE, RAW

RAW_ROW = "raw"
REGIONCLIP_ROW = "RegionCLIP"
CLIPSELF_ROW = "CLIPSelf with proposals, for comparison"
ROWS = {RAW_ROW: RAW, REGIONCLIP_ROW: REGIONCLIP, CLIPSELF_ROW: "tiny-clipself-proposals"}

TRUTH, TRUTH_NOVEL = "true boxes, AP50", "true boxes, novel AP50"
PROPOSED, PROPOSED_NOVEL = "proposals, AP50", "proposals, novel AP50"
PAPERS: Mapping[tuple[str, str], Paper] = {
    (RAW_ROW, TRUTH): RAW_TRUTH,
    (RAW_ROW, PROPOSED): RAW_PROPOSED,
    (REGIONCLIP_ROW, TRUTH): REGIONCLIP_TRUTH,
    (REGIONCLIP_ROW, PROPOSED): REGIONCLIP_PROPOSED,
}


def zero_shot(measured: Measurements, models: Mapping[str, str], proposer: str) -> tuple[list[Row], list[str]]:
    """Return Table 4: each model names true boxes, and those of one proposer."""
    rows: list[Row] = []
    for name, model in models.items():
        report = measured.dense(model, measured.scale.size, measured.scale.scenes)
        truth, proposed = (measured.named(model, boxes).summary() for boxes in (None, proposer))
        figures = {
            BOXES: top(report, "dense", "boxes", "things"),
            TRUTH: 100 * truth["all AP50"],
            TRUTH_NOVEL: 100 * truth["novel AP50"],
            PROPOSED: 100 * proposed["all AP50"],
            PROPOSED_NOVEL: 100 * proposed["novel AP50"],
        }
        rows += [
            Row(name, metric, (value,), PAPERS.get((name, metric)))
            for metric, value in figures.items()
            if math.isfinite(value)  # a few scenes may have no novel shape
        ]
    return rows, [_gained(rows, metric) for metric in (BOXES, TRUTH, PROPOSED)]


def forgetting(measured: Measurements, models: Mapping[str, str]) -> tuple[list[Row], list[str]]:
    """Return what each model gains on regions and loses on whole images."""
    rows = gained_and_lost(measured, models)
    return rows, [_gained(rows, metric) for metric in (WHOLE, RETRIEVED)]


def losses(measured: Measurements, trained: Mapping[str, str]) -> tuple[list[Row], list[str]]:
    """Return regions and whole images for each set of losses, at the ablations' size."""
    scale, rows = measured.scale, []
    for name, model in trained.items():
        report = measured.dense(model, ABLATION_SIZE, scale.trend_scenes)
        whole = measured.whole(model, scale.curve_close_ups)
        rows += [row for row in map_rows(name, report, {}) if row.metric in (BOXES, THINGS, STUFF)]
        rows += whole_rows(name, whole)
    best = {metric: max(_column(rows, metric), key=lambda row: row.mean) for metric in (BOXES, WHOLE)}
    return rows, [f"Best on {metric}: {row.name}, {row.mean:.1f} %." for metric, row in best.items()]


def _gained(rows: list[Row], metric: str) -> str:
    raw, *others = _column(rows, metric)
    told = ", ".join(f"{row.name.partition(',')[0]} {row.mean - raw.mean:+.1f}" for row in others)
    return f"{metric}: against raw {raw.mean:.1f} %, {told} points."


def _column(rows: list[Row], metric: str) -> list[Row]:
    return [row for row in rows if row.metric == metric]
