"""The tables of open-vocabulary detection: F-ViT on every backbone (CLIPSelf's Tables 3 and 6), and how scores meet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from closeup.match.detections import Suppression
from closeup.predict.detection_report import DetectionReport
from closeup.reproduce.detection_paper import (
    BASE,
    GROUPS,
    NOVEL,
    PATCHES_FVIT,
    PROPOSALS_FVIT,
    RAW_FVIT,
    REGIONCLIP_FVIT,
    REGIONCLIP_TRANSFER,
)
from closeup.reproduce.measure import Measurements
from closeup.reproduce.result import Paper, Row

RAW_ROW = "raw"
REGIONCLIP_ROW = "RegionCLIP"
PATCHES_ROW = "CLIPSelf with image patches"
PROPOSALS_ROW = "CLIPSelf with proposals"
KEPT_ROW = "CLIPSelf with both, whole images kept"

BACKBONES = {
    RAW_ROW: "tiny",
    REGIONCLIP_ROW: "tiny-regionclip",
    PATCHES_ROW: "tiny-clipself-patches",
    PROPOSALS_ROW: "tiny-clipself-proposals",
    KEPT_ROW: "tiny-clipself",
}
TRANSFERRED = (RAW_ROW, REGIONCLIP_ROW, PROPOSALS_ROW)
"""Backbones that RegionCLIP's detector is trained on."""

PAPERS: Mapping[str, Mapping[str, Paper]] = {
    RAW_ROW: RAW_FVIT,
    REGIONCLIP_ROW: REGIONCLIP_FVIT,
    PATCHES_ROW: PATCHES_FVIT,
    PROPOSALS_ROW: PROPOSALS_FVIT,
}
SHARES = {
    "head alone": (0.0, 0.0),
    "as the paper, alpha 0.1 and beta 0.8": (0.1, 0.8),
    "half and half": (0.5, 0.5),
    "CLIP alone": (1.0, 1.0),
}
"""CLIP's share in the scores of base and of novel words."""


def detectors(measured: Measurements, trained: Mapping[str, Sequence[str]]) -> tuple[list[Row], list[str]]:
    """Return average precision of the detectors of each backbone, one figure per seed."""
    rows: list[Row] = []
    for name, folders in trained.items():
        rows += scored(name, [measured.detections(folder) for folder in folders], PAPERS.get(name, {}))
    return rows, follows(rows)


def transferred(measured: Measurements, trained: Mapping[str, Sequence[str]]) -> tuple[list[Row], list[str]]:
    """Return average precision of RegionCLIP's detector on each backbone; overlaps lower scores, as officially."""
    rows: list[Row] = []
    for name, folders in trained.items():
        reports = [measured.detections(folder, suppression=Suppression(soft=True)) for folder in folders]
        rows += scored(name, reports, REGIONCLIP_TRANSFER if name == REGIONCLIP_ROW else {})
    return rows, follows(rows)


def shipped(measured: Measurements, detector: str) -> tuple[list[Row], list[str]]:
    """Return average precision of the detector that ships, by boxes and by masks."""
    rows: list[Row] = []
    for name, masks in (("boxes", False), ("masks", True)):
        rows += scored(name, [measured.detections(detector, masks=masks)], {})
    return rows, []


def fusion(measured: Measurements, detector: str) -> tuple[list[Row], list[str]]:
    """Return what one detector scores by CLIP's share in its scores."""
    rows: list[Row] = []
    for name, (alpha, beta) in SHARES.items():
        rows += scored(name, [measured.detections(detector, alpha=alpha, beta=beta)], {})
    novel = [row for row in rows if row.metric == NOVEL]
    best = max((row.mean for row in novel), default=0.0)
    named = [row.name for row in novel if row.mean == best]
    return rows, [f"Best on novel shapes: {named[0]}, {best:.1f} %."] if len(named) == 1 else []


def scored(name: str, reports: Sequence[DetectionReport], papers: Mapping[str, Paper]) -> list[Row]:
    """Return novel, base and all AP50 in percent, a figure per report; none where the pictures have no such object."""
    found = {metric: tuple(100 * report.summary()[metric] for report in reports) for metric in GROUPS}
    return [
        Row(name, metric, values, papers.get(metric))
        for metric, values in found.items()
        if all(math.isfinite(value) for value in values)
    ]


def follows(rows: Sequence[Row]) -> list[str]:
    """Return what the rows say: each backbone against the raw one, and CLIPSelf with proposals against others."""
    means = {(row.name, row.metric): row.mean for row in rows}
    findings = []
    for name in dict.fromkeys(row.name for row in rows):
        compared = {(each, metric) for each in (name, RAW_ROW) for metric in (NOVEL, BASE)}
        if name == RAW_ROW or not compared <= means.keys():
            continue
        novel, raw = means[name, NOVEL], means[RAW_ROW, NOVEL]
        against = f", {novel / raw:.1f} times raw's" if raw > 0 else " against raw's 0"
        base = means[name, BASE] - means[RAW_ROW, BASE]
        findings.append(f"{name}: novel {novel:.1f} %{against}; base {base:+.1f} points.")
    for other in (PATCHES_ROW, REGIONCLIP_ROW):
        if not {(PROPOSALS_ROW, NOVEL), (other, NOVEL)} <= means.keys():
            continue
        if gap := means[PROPOSALS_ROW, NOVEL] - means[other, NOVEL]:
            # In the paper proposals are ahead of both.
            same = "as in the paper" if gap > 0 else "unlike the paper, where proposals are ahead"
            findings.append(f"{PROPOSALS_ROW} against {other}: novel {gap:+.1f} points, {same}.")
    return findings
