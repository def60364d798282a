"""CLIPSelf's tables on the world: which models, which pictures, in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from closeup.data.world import World
from closeup.models.load import packaged_models
from closeup.predict import clusters
from closeup.reproduce import clipself_tables as tables
from closeup.reproduce.clipself_blends import blends, blends_curve
from closeup.reproduce.clipself_models import ablation_trainings, shipped_trainings
from closeup.reproduce.measure import Measurements, Scale
from closeup.reproduce.result import Row
from closeup.reproduce.run import Found, Part, Pictures, Reproduction, Wanted
from closeup.reproduce.trainings import ABLATION_PICTURES, ABLATION_SIZE, made
from closeup.viz import draw_curves, draw_sheet

QUICK = Scale(
    scenes=4,
    trend_scenes=3,
    close_ups=12,
    curve_close_ups=12,
    size=64,
    sizes=(64, 96),
    alphas=(0.0, 0.5, 1.0),
    workers=0,
)
KMEANS_SCENES = (3, 7, 11)
KMEANS = 8

TableOf: TypeAlias = Callable[[Measurements, Mapping[str, str]], tuple[list[Row], list[str]]]
Draw: TypeAlias = Callable[[Measurements, Mapping[str, str], list[Row]], Pictures]
Measure: TypeAlias = Callable[[Wanted, Measurements], Found]


def models(wanted: Wanted) -> dict[str, str]:
    """Return the models of the main tables by their row's name: those that ship, or made again."""
    if not wanted.train:
        return {row: name for row, name in tables.ROWS.items() if name in packaged_models()}
    folders = {training.name: made(training, wanted) for training in shipped_trainings()}
    return {row: folders.get(name, name) for row, name in tables.ROWS.items()}


def _main(table: TableOf, draw: Draw) -> Measure:
    def measure(wanted: Wanted, measured: Measurements) -> Found:
        chosen = models(wanted)
        rows, findings = table(measured, chosen)
        return Found(rows, findings, draw(measured, chosen, rows))

    return measure


def _ablation(key: str, *, own_size: bool = False) -> Measure:
    def measure(wanted: Wanted, measured: Measurements) -> Found:
        trained = {row: made(training, wanted) for row, training in ablation_trainings()[key].items()}
        rows, findings = tables.ablation(measured, trained, own_size=own_size)
        return Found(rows, findings, {})

    return measure


def _no_pictures(*_: object) -> Pictures:
    return {}


def _curve(measured: Measurements, chosen: Mapping[str, str], rows: list[Row]) -> Pictures:
    """Draw top-1 on boxes against the picture's size, one curve per model."""
    sizes = measured.scale.sizes
    points = {
        name: [(float(size), row.mean) for size, row in zip(sizes, _of(name, rows), strict=True)] for name in chosen
    }
    plot = draw_curves(points, [f"{size}" for size in sizes], x="side of the picture, pixels", y="boxes top-1, %")
    return {"sizes": (plot, "Region recognition from the dense map by the size of the picture (the paper's Figure 1).")}


def _of(name: str, rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.name == name]


def _clusters(measured: Measurements, chosen: Mapping[str, str], _: list[Row]) -> Pictures:
    """Draw k-means clusters of the dense maps of a few scenes (the paper's Figure 4)."""
    world = World("val", count=max(KMEANS_SCENES) + 1)
    clips = {name.removeprefix("map, "): measured.clip(model) for name, model in chosen.items()}
    sheets = [clusters(clips, world[scene].load(), KMEANS, size=measured.scale.size) for scene in KMEANS_SCENES]
    return {"kmeans": (draw_sheet(sheets, columns=1), "k-means clusters of the dense maps, as the paper's Figure 4.")}


CLIPSELF = Reproduction(
    name="clipself",
    title="CLIPSelf on the world",
    paper="Wu et al., CLIPSelf: Vision Transformer Distills Itself for Open-Vocabulary Dense Prediction, ICLR 2024, "
    "arXiv 2310.01403",
    scale=Scale(),
    quick=QUICK,
    parts=(
        Part(
            "regions",
            "Regions from the dense map (Table 2)",
            "Top-1 and top-5 accuracy in percent, the mean over classes, of {scale.scenes} held-out scenes' regions "
            "among all 34 names of the world; pictures at {scale.size} px (8 px a cell), crops at 64 px. Proposals are "
            "the boxes of the training scenes, without their classes.",
            False,
            _main(tables.regions, _clusters),
        ),
        Part(
            "sizes",
            "Crops against the map, by size (Table 1)",
            "Top-1 on boxes of things in percent, first {scale.trend_scenes} held-out scenes (crops: {scale.scenes}), "
            "by the side of the picture that the map is of. Scenes are drawn at 256 px.",
            False,
            _main(tables.sizes, _curve),
        ),
        Part(
            "forgetting",
            "What is gained, and what is forgotten",
            "Regions as above; whole images are {scale.close_ups:,} close-ups: zero-shot accuracy over shape, four "
            "attributes and ground, and retrieval R@1, mean of both directions. The paper names the loss and does not "
            "measure it.",
            False,
            _main(tables.forgetting, _no_pictures),
        ),
        Part(
            "blends",
            "Gained against forgotten, by the share of the adapted model",
            "Weights mixed with the raw model's, alpha of the adapted one; boxes of {scale.trend_scenes} scenes, and "
            "{scale.curve_close_ups} close-ups for whole images. Alpha 0.7 is that of CLIPSelf's released ViT-B/16.",
            False,
            _main(blends, blends_curve),
        ),
        Part(
            "windows",
            "Window attention in the place of distillation (Table 7)",
            "The raw model's map with attention inside windows of the native grid (8 x 8 cells), as table one.",
            False,
            _main(tables.windows, _no_pictures),
        ),
        Part(
            "sources",
            "Ablation: which regions are distilled",
            f"{ABLATION_PICTURES:,} scenes each, student at {ABLATION_SIZE} px; top-1 in percent at that size.",
            True,
            _ablation("sources"),
        ),
        Part(
            "splits",
            "Ablation: how finely pictures are split",
            f"Image patches of grids up to M x M; {ABLATION_PICTURES:,} scenes each, student at {ABLATION_SIZE} px.",
            True,
            _ablation("splits"),
        ),
        Part(
            "blocks",
            "Ablation: how many of the last blocks learn",
            f"Of tiny's 6; proposals, {ABLATION_PICTURES:,} scenes each, student at {ABLATION_SIZE} px.",
            True,
            _ablation("blocks"),
        ),
        Part(
            "size",
            "Ablation: the student's size in training",
            f"Proposals, {ABLATION_PICTURES:,} scenes each; measured at {ABLATION_SIZE} px and at the scenes' 256 px.",
            True,
            _ablation("size", own_size=True),
        ),
    ),
)
