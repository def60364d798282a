"""DenseCLIP's tables: each step of it on the world and on CamVid, and what the paper's models cost."""

from __future__ import annotations

from closeup.data.registry import open_reader
from closeup.reproduce import denseclip_tables as tables
from closeup.reproduce.denseclip_models import (
    DETECTOR_STEPS,
    DETECTORS,
    ROWS,
    SHIPPED,
    SIZE,
    STEPS,
    detector_training,
    shipped_training,
    training,
)
from closeup.reproduce.denseclip_pictures import shipped_sheet
from closeup.reproduce.detection_models import SEEDS, made_head, shipped_or_made
from closeup.reproduce.detection_pictures import found_sheet
from closeup.reproduce.measure import Measurements, Scale
from closeup.reproduce.run import Found, Part, Reproduction, Wanted

QUICK = Scale(scenes=4, trend_scenes=3, size=64, workers=0)
WORLD = "world?count={pictures}"

_ALL_ROWS = (
    f"mIoU in percent, mean and sample deviation over {len(SEEDS)} seeds; the same {STEPS} steps of 8 pictures on a "
    f"canvas of {SIZE} px for every row, the image tower at a tenth of the rate; looked at through windows of "
    f"{SIZE} px. Parameters are those that learn, operations the multiply-accumulates of one canvas afterwards; the "
    "text tower is counted where a row needs it for each picture (pre). "
)


def _trained(wanted: Wanted, data: str, images: str) -> dict[str, list[str]]:
    """Return the folders of every row, one per seed."""
    seeds = SEEDS[:2] if wanted.quick else SEEDS
    return {row: [made_head(training(row, seed, data, images), wanted) for seed in seeds] for row in ROWS}


def _world(wanted: Wanted, measured: Measurements) -> Found:
    rows, findings = tables.segmented(measured, "world", None, _trained(wanted, "world", WORLD))
    return Found(rows, findings, {})


def _camvid(wanted: Wanted, measured: Measurements) -> Found:
    line = f"camvid:{wanted.camvid}"
    reader = open_reader(line, "test")
    rows, findings = tables.segmented(measured, "CamVid", reader, _trained(wanted, "camvid", line))
    return Found(rows, findings, {})


def _sized(wanted: Wanted, measured: Measurements) -> Found:
    rows, findings = tables.sized()
    return Found(rows, findings, {})


def _detected(wanted: Wanted, measured: Measurements) -> Found:
    trained = {row: made_head(detector_training(row), wanted) for row in DETECTORS}
    rows, findings = tables.detected(measured, trained)
    sheet = found_sheet(trained)
    return Found(rows, findings, {"detectors": (sheet, "What each detector finds (scores from 0.3).")})


def _shipped(wanted: Wanted, measured: Measurements) -> Found:
    head = shipped_or_made(shipped_training(), wanted)
    rows, findings = tables.shipped(measured, head)
    return Found(rows, findings, {"shipped": (shipped_sheet(head), "Held-out scenes by the predictor that ships.")})


DENSECLIP = Reproduction(
    name="denseclip",
    title="DenseCLIP, on the world and on CamVid",
    paper="Rao et al., DenseCLIP, CVPR 2022, arXiv 2112.01518",
    scale=Scale(scenes=200),
    quick=QUICK,
    parts=(
        Part(
            "cost",
            "Parameters and operations of the paper's models",
            "For 150 words; parameters in millions that learn, the text tower left out; operations of a square of 1024 "
            "px in billions as the paper's table counts them: multiply-accumulates, norms and resizing with them, and "
            "a ViT's transposed convolutions by their output, which is four times what they do. ResNets with positions "
            "for 512 px, ViT-B/16 for 640 px. Counted from shapes alone: the weights are random.",
            False,
            _sized,
        ),
        Part(
            "world",
            "Each step, on the world",
            _ALL_ROWS + "{scale.trend_scenes} held-out scenes, all 34 words.",
            True,
            _world,
        ),
        Part(
            "camvid",
            "Each step, on CamVid",
            _ALL_ROWS + "Street photographs, 11 classes: 367 to learn from, the 233 of the test split to measure on. "
            "tiny has seen no photograph before.",
            True,
            _camvid,
            camvid=True,
        ),
        Part(
            "detection",
            "Detection and instances, on the world",
            "Average precision in percent (IoU 0.5 to 0.95) over all 24 shapes, on {scale.scenes} held-out scenes, "
            f"looked at at {SIZE} px; one seed. {DETECTOR_STEPS} steps of 8 scenes for every row, the image tower at a "
            "tenth of the rate.",
            True,
            _detected,
        ),
        Part(
            "shipped",
            "The predictor that ships",
            f"`{SHIPPED}`: DenseCLIP on `tiny-clipself`, on the world; mIoU in percent on {{scale.trend_scenes}} "
            "held-out scenes: whole, through windows, and at several scales and mirrored.",
            False,
            _shipped,
        ),
    ),
)
