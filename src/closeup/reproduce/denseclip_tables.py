"""DenseCLIP's tables: what each step of it adds to a plain pyramid on a CLIP, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from closeup.data.class_lists import class_names
from closeup.data.record import Reader
from closeup.heads.dense_predictor import DensePredictor, load_dense_predictor, new_dense_predictor
from closeup.heads.operations import count_operations, count_operations_as_published
from closeup.models.load import load
from closeup.predict.dense_predictor import DensePredictorScorer
from closeup.reproduce.denseclip_paper import MIOU, OPERATIONS, PARAMETERS, PLAIN_ROW, SEGMENTED, SIZED
from closeup.reproduce.measure import Measurements
from closeup.reproduce.result import Row

TOWERS = {"ResNet-50": ("random:RN50", 512), "ResNet-101": ("random:RN101", 512), "ViT-B/16": ("random:ViT-B-16", 640)}
"""The CLIPs of the paper's table, and the sides that their positions are stored for."""
COUNTED_SIDE = 1024
MILLION, BILLION = 1e6, 1e9

Table = tuple[list[Row], list[str]]


def segmented(measured: Measurements, data: str, reader: Reader | None, trained: Mapping[str, Sequence[str]]) -> Table:
    """Return mean IoU of each row, a figure per seed, through windows; with parameters and operations of the canvas."""
    rows: list[Row] = []
    for name, folders in trained.items():
        found = []
        for folder in folders:
            predictor = load_dense_predictor(folder)
            report = measured.segmented(
                f"{data}: {folder}",
                partial(DensePredictorScorer, predictor, window=predictor.size),
                reader,
                novel=[False] * len(predictor.words),
            )
            found.append(100 * float(report.summary()["miou"] or 0))
        rows.append(Row(name, MIOU, tuple(found), SEGMENTED.get(name)))
        rows += costs(name, predictor, predictor.size, count_operations)
    return rows, gains(rows)


def sized() -> Table:
    """Return parameters and operations of the paper's own towers, without any weights, beside the paper's."""
    rows: list[Row] = []
    words = class_names("ade20k-150")
    for tower, (model, size) in TOWERS.items():
        for kind, language in (("plain pyramid", False), ("DenseCLIP", True)):
            clip = load(model, device="cpu", precision="fp32")
            made = new_dense_predictor(
                clip, words, [False] * len(words), templates="simple", size=size, config={"language": language}
            )
            made.head.to("meta")  # shapes are all that is counted
            rows += costs(f"{tower}, {kind}", made, COUNTED_SIDE, count_operations_as_published)
    apart = {f"{row.name}, {row.metric}": row.mean / row.paper.value - 1 for row in rows if row.paper is not None}
    worst = max(apart, key=lambda name: abs(apart[name]))
    return rows, [f"The furthest from the paper's figures: {worst}, {apart[worst]:+.2%}."]


def shipped(measured: Measurements, head: str) -> Table:
    """Return mean IoU of the predictor that ships, by how it looks at a picture."""
    predictor = load_dense_predictor(head)
    looks = {
        "whole": DensePredictorScorer(predictor),
        f"windows of {predictor.size} px": DensePredictorScorer(predictor, window=predictor.size),
        "scales 0.75, 1 and 1.5, mirrored": DensePredictorScorer(predictor, scales=(0.75, 1.0, 1.5), mirrored=True),
    }
    rows: list[Row] = []
    for name, scorer in looks.items():
        novel = [False] * len(predictor.words)
        report = measured.segmented(f"{head}: {name}", partial(_as_it_is, scorer), novel=novel)
        rows.append(Row(name, MIOU, (100 * float(report.summary()["miou"] or 0),)))
    return rows, []


def _as_it_is(scorer: DensePredictorScorer) -> DensePredictorScorer:
    return scorer


def costs(name: str, predictor: DensePredictor, side: int, count: Callable[[Callable[[], object]], int]) -> list[Row]:
    """Return the millions of parameters that learn, text tower left out, and the billions of operations of a square."""
    head = predictor.head
    head.eval()
    learned = sum(parameter.numel() for parameter in head.parameters() if parameter.requires_grad)
    with torch.no_grad():
        operations = count(lambda: head.read(torch.zeros(1, 3, side, side, device=head.backbone.clip.device)))
    papers = SIZED.get(name, {})
    return [
        Row(name, PARAMETERS, (learned / MILLION,), papers.get(PARAMETERS)),
        Row(name, OPERATIONS, (operations / BILLION,), papers.get(OPERATIONS)),
    ]


def gains(rows: Sequence[Row]) -> list[str]:
    """Return what each row has over the plain pyramid on a CLIP, in points, and whether spreads tell them apart."""
    found = {row.name: row for row in rows if row.metric == MIOU}
    plain = found[PLAIN_ROW]
    told = []
    for name, row in found.items():
        if name == PLAIN_ROW:
            continue
        gap = row.mean - plain.mean
        spread = max(row.spread or 0.0, plain.spread or 0.0)
        sure = "more than the larger spread over seeds" if abs(gap) > spread else "within the spread over seeds"
        told.append(f"{name}: {gap:+.1f} points against {PLAIN_ROW}, {sure}.")
    best = max(found.values(), key=lambda row: row.mean)
    return [*told, f"Best: {best.name}, {best.mean:.1f} %."]
