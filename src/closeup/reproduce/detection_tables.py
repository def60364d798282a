"""The tables of open-vocabulary detection: F-ViT on every backbone (CLIPSelf's Tables 3 and 6), and how scores meet."""

from __future__ import annotations

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
    return rows, _findings(rows)


def transferred(measured: Measurements, trained: Mapping[str, Sequence[str]]) -> tuple[list[Row], list[str]]:
    """Return average precision of RegionCLIP's detector on each backbone; overlaps lower scores, as officially."""
    rows: list[Row] = []
    for name, folders in trained.items():
        reports = [measured.detections(folder, suppression=Suppression(soft=True)) for folder in folders]
        rows += scored(name, reports, REGIONCLIP_TRANSFER if name == REGIONCLIP_ROW else {})
    return rows, _findings(rows)


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
    best = max((row for row in rows if row.metric == NOVEL), key=lambda row: row.mean)
    return rows, [f"Best on novel shapes: {best.name}, {best.mean:.1f} %."]


def scored(name: str, reports: Sequence[DetectionReport], papers: Mapping[str, Paper]) -> list[Row]:
    """Return novel, base and all AP50 in percent, a figure per report."""
    return [
        Row(name, metric, tuple(100 * report.summary()[metric] for report in reports), papers.get(metric))
        for metric in GROUPS
    ]


def _findings(rows: list[Row]) -> list[str]:
    found = {(row.name, row.metric): row for row in rows}
    raw, findings = found[RAW_ROW, NOVEL], []
    for name in dict.fromkeys(row.name for row in rows):
        novel, base = found[name, NOVEL], found[name, BASE]
        if name != RAW_ROW and raw.mean > 0:
            change = base.mean - found[RAW_ROW, BASE].mean
            findings.append(f"{name}: novel {novel.mean / raw.mean:.1f} times raw's, base {change:+.1f} points.")
    if (PATCHES_ROW, NOVEL) in found and (PROPOSALS_ROW, NOVEL) in found:
        gap = found[PROPOSALS_ROW, NOVEL].mean - found[PATCHES_ROW, NOVEL].mean
        same = "as in the paper" if gap > 0 else "unlike the paper, where proposals are better"
        findings.append(f"Proposals against patches: novel {gap:+.1f} points, {same}.")
    return findings
