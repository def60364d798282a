"""DenseCLIP's tables: what each step of it adds to a plain pyramid on a CLIP, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F

from closeup.data.class_lists import class_names
from closeup.data.record import Reader
from closeup.data.world import World
from closeup.heads.dense_detector import load_dense_detector
from closeup.heads.dense_predictor import DensePredictor, load_dense_predictor, new_dense_predictor
from closeup.heads.operations import count_operations, count_operations_as_published
from closeup.models.load import load
from closeup.predict.dense_predictor import DensePredictorScorer
from closeup.reproduce.denseclip_paper import (
    BOX_AP,
    DETECTED,
    MASK_AP,
    MIOU,
    OPERATIONS,
    PARAMETERS,
    PLAIN_ROW,
    SEGMENTED,
    SIZED,
)
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
        found = tuple(_miou(measured, f"{data}: {folder}", partial(scorer, folder), reader) for folder in folders)
        rows.append(Row(name, MIOU, found, SEGMENTED.get(name)))
        predictor = load_dense_predictor(folders[0], device="cpu", precision="fp32")
        rows += costs(name, predictor, predictor.size, count_operations)
    return rows, gains(rows)


def sized() -> Table:
    """Return parameters and operations of the paper's own towers, without any weights, beside the paper's."""
    rows: list[Row] = []
    words = class_names("ade20k-150")
    for tower, (model, size) in TOWERS.items():
        clip = load(model, device="cpu", precision="fp32")
        for kind, language in (("plain pyramid", False), ("DenseCLIP", True)):
            made = new_dense_predictor(
                clip, words, [False] * len(words), templates="simple", size=size, config={"language": language}
            )
            made.head.to("meta")  # shapes are all that is counted
            rows += costs(f"{tower}, {kind}", made, COUNTED_SIDE, count_operations_as_published)
    apart = {f"{row.name}, {row.metric}": row.mean / row.paper.value - 1 for row in rows if row.paper is not None}
    worst = max(apart, key=lambda name: abs(apart[name]))
    return rows, [f"The furthest from the paper's figures: {worst}, {apart[worst]:+.2%}."]


def detected(measured: Measurements, trained: Mapping[str, str]) -> Table:
    """Return average precision over all shapes by boxes, and by masks where a detector outlines."""
    rows: list[Row] = []
    for name, folder in trained.items():
        detector = load_dense_detector(folder)
        for metric, masks in ((BOX_AP, False), (MASK_AP, True)):
            if masks and not detector.outlines:
                continue
            found = measured.detections(folder, masks=masks).summary()
            rows.append(Row(name, metric, (100 * found["all AP"],), DETECTED[name].get(metric)))
            rows.append(Row(name, f"{metric}50", (100 * found["all AP50"],)))
    return rows, _against_plain(rows)


def _against_plain(rows: Sequence[Row]) -> list[str]:
    means = {(row.name, row.metric): row.mean for row in rows}
    told = []
    for head in dict.fromkeys(row.name.partition(", ")[0] for row in rows):
        gaps = [
            f"{metric} {means[f'{head}, DenseCLIP', metric] - means[f'{head}, plain', metric]:+.1f}"
            for metric in (BOX_AP, MASK_AP)
            if (f"{head}, plain", metric) in means
        ]
        told.append(f"{head}: {', '.join(gaps)} points with DenseCLIP's scores and words.")
    return told


def shipped(measured: Measurements, head: str) -> Table:
    """Return mean IoU of the predictor that ships, by how it looks at a picture."""
    looks = {
        "whole": partial(scorer, head, windows=False),
        "through windows": partial(scorer, head),
        "at scales 0.75, 1 and 1.5, mirrored": partial(
            scorer, head, windows=False, scales=(0.75, 1.0, 1.5), mirrored=True
        ),
    }
    return [Row(name, MIOU, (_miou(measured, f"{head}: {name}", make, None),)) for name, make in looks.items()], []


def scorer(
    head: str, *, windows: bool = True, scales: tuple[float, ...] = (1.0,), mirrored: bool = False
) -> DensePredictorScorer:
    """Return a dense predictor as it looks at pictures, through windows as large as its canvas if wanted."""
    predictor = load_dense_predictor(head)
    return DensePredictorScorer(predictor, predictor.size if windows else None, scales=scales, mirrored=mirrored)


def _miou(measured: Measurements, name: str, make: Callable[[], DensePredictorScorer], reader: Reader | None) -> float:
    """Return the mean IoU over all words, in percent: nothing is novel to a closed list."""
    names = World.names if reader is None else reader.names
    found = measured.segmented(name, make, reader, [False] * len(names)).summary()["miou"]
    return 100 * float(found or 0)


def costs(name: str, predictor: DensePredictor, side: int, count: Callable[[Callable[[], object]], int]) -> list[Row]:
    """Return the millions of parameters that learn, text tower left out, and the billions of operations of a square."""
    head = predictor.head
    head.eval()
    learned = sum(parameter.numel() for parameter in head.parameters() if parameter.requires_grad)
    head.requires_grad_(False)  # torch's counter follows gradients even where they are off
    square = torch.zeros(1, 3, side, side, device=head.backbone.clip.device)
    with torch.no_grad():
        operations = count(lambda: F.interpolate(head.read(square)[0], (side, side), mode="bilinear"))
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
