"""Segmentation on raw and adapted CLIPs: without training, by CAT-Seg, and panoptic (CLIPSelf's Tables 4 and 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from closeup.heads.segmenter import load_segmenter
from closeup.predict.catseg import CatSegScorer
from closeup.predict.maskclip import MaskClipScorer
from closeup.predict.panoptic_report import PanopticReport
from closeup.predict.scorers import DenseScorer
from closeup.reproduce.detection_tables import BACKBONES, KEPT_ROW, RAW_ROW
from closeup.reproduce.measure import Measurements
from closeup.reproduce.ovseg_paper import MIOU
from closeup.reproduce.ovseg_tables import NOVEL_MIOU, scored
from closeup.reproduce.result import Paper, Row

PQ, NOVEL_PQ, BASE_PQ, THING_PQ, STUFF_PQ = "PQ", "PQ novel", "PQ base", "PQ things", "PQ grounds"
LEARNING_ROW = "raw, whose queries and values learn"
TRAINED: Mapping[str, Mapping[str, object]] = {
    RAW_ROW: {"route": "value-cls-residual"},
    LEARNING_ROW: {"route": "value-cls-residual", "tune": "both", "clip_pace": 1.0},
    KEPT_ROW: {"route": "value"},
}
"""How CAT-Seg stands on each backbone."""
ALONE = "the proposer alone"
PROPOSER_ALONE = {"weight": 0.0, "novel_weight": 0.0, "gaps": False}

_TABLE_4 = "CLIPSelf (arXiv 2310.01403) Table 4, CAT-Seg, ADE20K-150, as recalled: "
CATSEG: Mapping[str, Paper] = {
    RAW_ROW: Paper(27.2, _TABLE_4 + "ViT-B/16 as it came"),
    KEPT_ROW: Paper(29.7, _TABLE_4 + "ViT-B/16 with CLIPSelf"),
}
_TABLE_5 = "CLIPSelf (arXiv 2310.01403) Table 5, ODISE, ADE20K, as recalled: "
PANOPTIC: Mapping[str, Paper] = {
    RAW_ROW: Paper(22.6, _TABLE_5 + "ViT-L/14 as it came"),
    KEPT_ROW: Paper(23.7, _TABLE_5 + "ViT-L/14 with CLIPSelf"),
}

Table = tuple[list[Row], list[str]]


def untrained(measured: Measurements) -> Table:
    """Return mean IoU without any training: the dense map, and MaskCLIP's refinements of it."""
    rows: list[Row] = []
    size = measured.scale.size
    for backbone, model in BACKBONES.items():
        clip = measured.clip(model)
        for name, make in (
            ("dense map", partial(DenseScorer, clip, size=size)),
            ("prompts denoised", partial(MaskClipScorer, clip, size, smoothing=None)),
            ("prompts denoised, keys smoothed", partial(MaskClipScorer, clip, size)),
            ("the same, keys as officially", partial(MaskClipScorer, clip, size, keys="positions")),
        ):
            rows += scored(f"{backbone}: {name}", measured.segmented(f"{model}: {name}", make), {})
    return rows, []


def catseg(measured: Measurements, trained: Mapping[str, str]) -> Table:
    """Return mean IoU of a CAT-Seg on each backbone."""
    rows: list[Row] = []
    for name, folder in trained.items():
        made = partial(CatSegScorer, load_segmenter(folder))
        rows += scored(name, measured.segmented(f"CAT-Seg, {name}", made), CATSEG)
    return rows, compared(rows, (MIOU, NOVEL_MIOU))


def panoptic(measured: Measurements, proposer: str) -> Table:
    """Return panoptic quality with masks read off the dense map of each backbone, and by the proposer alone."""
    rows = qualities(ALONE, measured.panoptic(BACKBONES[RAW_ROW], proposer, **PROPOSER_ALONE), {})
    for name, model in BACKBONES.items():
        rows += qualities(name, measured.panoptic(model, proposer), PANOPTIC)
    return rows, compared(rows, (PQ, NOVEL_PQ))


def qualities(name: str, report: PanopticReport, papers: Mapping[str, Paper]) -> list[Row]:
    """Return panoptic quality in percent: all, novel, base, things, grounds; none of what is not there."""
    found = report.summary()
    values = {
        PQ: found["all"]["pq"],
        NOVEL_PQ: found["novel"]["pq"],
        BASE_PQ: found["base"]["pq"],
        THING_PQ: found["all"]["things pq"],
        STUFF_PQ: found["all"]["stuff pq"],
    }
    return [
        Row(name, metric, (100 * value,), papers.get(name) if metric == PQ else None)
        for metric, value in values.items()
        if value is not None
    ]


def compared(rows: Sequence[Row], metrics: Sequence[str]) -> list[str]:
    """Return what each backbone has over the raw one."""
    means = {(row.name, row.metric): row.mean for row in rows}
    told = []
    for name in dict.fromkeys(row.name for row in rows):
        parts = [
            f"{metric} {means[name, metric] - means[RAW_ROW, metric]:+.1f}"
            for metric in metrics
            if {(name, metric), (RAW_ROW, metric)} <= means.keys()
        ]
        if name not in (RAW_ROW, ALONE) and parts:
            told.append(f"{name}: {', '.join(parts)} points against raw.")
    return told
