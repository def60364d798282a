"""OVSeg's tables: masks named by raw and adapted CLIPs, fused with their proposer, and with oracles in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch

from closeup.data.things import novel_marks
from closeup.data.world import World
from closeup.heads.mask_proposer import load_mask_proposer
from closeup.predict.evaluate_segmentation import SegmentationReport
from closeup.predict.given_masks import GivenMasksScorer
from closeup.predict.mask_sources import ProposerMasks, TruthMasks
from closeup.predict.oracle_words import OracleWordsScorer
from closeup.predict.region_report import RegionReport
from closeup.predict.scorers import Scorer
from closeup.predict.segment_masks import WEIGHT, OvSegScorer
from closeup.reproduce.measure import Measurements
from closeup.reproduce.ovseg_paper import ADAPTED, DEPTH, ENSEMBLE, MIOU, ORACLE, ORDER
from closeup.reproduce.result import Paper, Row
from closeup.reproduce.trainings import RAW

RAW_ROW = "raw"
NOVEL_THINGS, BASE_THINGS, GROUNDS = "masks named: novel things", "base things", "grounds"
NOVEL_MIOU, BASE_MIOU = "mIoU novel", "mIoU base"

Table = tuple[list[Row], list[str]]


def adapted(measured: Measurements, models: Mapping[str, str], proposer: str) -> Table:
    """Return Table 3: true masks named on their own, and OVSeg's mean IoU, by what was adapted."""
    rows: list[Row] = []
    for name, model in {RAW_ROW: RAW, **models}.items():
        rows += named(name, measured.masks_named(model))
        rows += scored(name, _ovseg(measured, model, proposer), ADAPTED)
    return rows, gains(rows)


def ensemble(measured: Measurements, model: str, proposer: str) -> Table:
    """Return Table 4: the proposer alone, each CLIP alone, and both."""
    rows = scored("the proposer alone", _ovseg(measured, RAW, proposer, weight=0.0), ENSEMBLE)
    for name, clip in ((RAW_ROW, RAW), ("adapted", model)):
        rows += scored(f"{name}: CLIP alone", _ovseg(measured, clip, proposer, weight=1.0), ENSEMBLE)
        rows += scored(f"{name}: both", _ovseg(measured, clip, proposer), ENSEMBLE)
    rows += scored("adapted: both, and what no mask covers", _ovseg(measured, model, proposer, gaps=True), {})
    means = {row.name: row.mean for row in rows if row.metric == MIOU}
    both, parts = means["adapted: both"], (means["the proposer alone"], means["adapted: CLIP alone"])
    told = "above both of its parts" if both > max(parts) else "not above both of its parts"
    return rows, [f"Adapted, both: {both:.1f} %, {told} ({parts[0]:.1f} and {parts[1]:.1f} %)."]


def true_masks(measured: Measurements, models: Mapping[str, str], papers: Mapping[str, Paper]) -> Table:
    """Return what some models call true masks: Tables 5 and 6."""
    rows: list[Row] = []
    for name, model in models.items():
        rows += named(name, measured.masks_named(model))
        rows += scored(name, measured.segmented(f"{model}: true masks", partial(_given, measured, model)), papers)
    means = {row.name: row.mean for row in rows if row.metric == MIOU}
    best = max(means, key=lambda name: means[name])
    return rows, [f"Best: {best}, {means[best]:.1f} % with true masks."]


def order(measured: Measurements, models: Mapping[str, str]) -> Table:
    """Return Table 5: what learns first."""
    return true_masks(measured, models, ORDER)


def depth(measured: Measurements, models: Mapping[str, str]) -> Table:
    """Return Table 6: at how many places prompts enter."""
    return true_masks(measured, models, DEPTH)


def oracle(measured: Measurements, model: str, proposer: str) -> Table:
    """Return the study with oracles: true masks or true words in the place of found ones."""
    rows: list[Row] = []
    for name, clip, how in (
        ("true masks, raw CLIP on masked crops", RAW, "masked-crop"),
        ("true masks, raw CLIP on whole crops", RAW, "crop"),
        ("true masks, adapted CLIP", model, None),
    ):
        made = partial(_given, measured, clip, how)
        key = f"{clip}: true masks" if how is None else f"{clip}: true masks, {how}"
        rows += scored(name, measured.segmented(key, made), ORACLE)
    source = ProposerMasks(proposer, load_mask_proposer(proposer))
    found = measured.segmented("proposals with true words", lambda: OracleWordsScorer(measured.clip(RAW), source))
    return rows + scored("the proposer's masks, true words", found, ORACLE), []


def named(name: str, report: RegionReport) -> list[Row]:
    """Return top-1 of true masks in percent, novel things, base things and grounds apart; none of what is not there."""
    (how,) = {encoder for encoder, _ in report.found}
    world = World()
    novel = torch.tensor(novel_marks(world, grounds=True))
    things = report.recognition(how, "masks", "things")
    parts = {
        NOVEL_THINGS: things.only(novel),
        BASE_THINGS: things.only(~novel),
        GROUNDS: report.recognition(how, "masks", "stuff"),
    }
    return [Row(name, metric, (100 * part.macro(),)) for metric, part in parts.items() if int(part.counts.sum())]


def scored(name: str, report: SegmentationReport, papers: Mapping[str, Paper]) -> list[Row]:
    """Return mean IoU in percent over all words, novel ones and base ones."""
    means = report.summary()
    found = {MIOU: means["miou"], NOVEL_MIOU: means.get("miou novel"), BASE_MIOU: means.get("miou base")}
    return [
        Row(name, metric, (100 * value,), papers.get(name) if metric == MIOU else None)
        for metric, value in found.items()
        if value is not None
    ]


def gains(rows: Sequence[Row]) -> list[str]:
    """Return what each adapted model has over the raw one."""
    means = {(row.name, row.metric): row.mean for row in rows}
    told = []
    for name in dict.fromkeys(row.name for row in rows):
        parts = [
            f"{metric} {means[name, metric] - means[RAW_ROW, metric]:+.1f}"
            for metric in (NOVEL_THINGS, BASE_THINGS, GROUNDS, MIOU, NOVEL_MIOU)
            if {(name, metric), (RAW_ROW, metric)} <= means.keys()
        ]
        if name != RAW_ROW and parts:
            told.append(f"{name}: {'; '.join(parts)} points over raw.")
    return told


def _given(measured: Measurements, model: str, how: str | None = None) -> Scorer:
    return GivenMasksScorer(measured.clip(model), TruthMasks(), how)


def _ovseg(
    measured: Measurements, model: str, proposer: str, *, weight: float = WEIGHT, gaps: bool = False
) -> SegmentationReport:
    def make() -> Scorer:
        return OvSegScorer(measured.clip(model), load_mask_proposer(proposer), weight=weight, gaps=gaps)

    return measured.segmented(f"OVSeg, {model}, CLIP's share {weight:g}{', gaps too' if gaps else ''}", make)
