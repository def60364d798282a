"""The tables of open-vocabulary detection on the world: base shapes teach, novel ones are found by their words."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from closeup.reproduce import detection_tables as tables
from closeup.reproduce.detection_models import (
    BACKBONE,
    DETECTOR,
    PICTURES,
    PROPOSER,
    SEEDS,
    HeadTraining,
    c4_training,
    fvit_training,
    made_head,
    shipped_head,
)
from closeup.reproduce.detection_pictures import found_sheet
from closeup.reproduce.measure import Measurements, Scale
from closeup.reproduce.run import Found, Part, Reproduction, Wanted

QUICK = Scale(scenes=4, workers=0)


def _made(rows: Iterable[str], training: Callable[[str, int], HeadTraining], wanted: Wanted) -> dict[str, list[str]]:
    """Return the folders of the heads of some rows' backbones, one per seed."""
    seeds = SEEDS[:2] if wanted.quick else SEEDS
    return {row: [made_head(training(tables.BACKBONES[row], seed), wanted) for seed in seeds] for row in rows}


def _fvit(wanted: Wanted, measured: Measurements) -> Found:
    trained = _made(tables.BACKBONES, fvit_training, wanted)
    rows, findings = tables.detectors(measured, trained)
    sheet = found_sheet({row: folders[0] for row, folders in trained.items()})
    return Found(rows, findings, {"fvit": (sheet, "What F-ViT on each backbone finds (seed 0, scores from 0.3).")})


def _c4(wanted: Wanted, measured: Measurements) -> Found:
    proposer = shipped_head(PROPOSER, wanted)
    trained = _made(tables.TRANSFERRED, partial(c4_training, proposer=proposer), wanted)
    rows, findings = tables.transferred(measured, trained)
    return Found(rows, findings, {})


def _shipped(wanted: Wanted, measured: Measurements) -> Found:
    detector = shipped_head(DETECTOR, wanted)
    rows, findings = tables.shipped(measured, detector)
    sheet = found_sheet({f"F-ViT on {BACKBONE}": detector})
    return Found(rows, findings, {"found": (sheet, "What the detector that ships finds (scores from 0.3).")})


def _fusion(wanted: Wanted, measured: Measurements) -> Found:
    detector = shipped_head(DETECTOR, wanted)
    rows, findings = tables.fusion(measured, detector)
    return Found(rows, findings, {})


DETECTION = Reproduction(
    name="detection",
    title="Open-vocabulary detection on the world",
    paper="Wu et al., CLIPSelf (F-ViT), ICLR 2024, arXiv 2310.01403; Zhong et al., RegionCLIP, CVPR 2022, arXiv "
    "2112.09106",
    scale=Scale(),
    quick=QUICK,
    parts=(
        Part(
            "fvit",
            "F-ViT on every backbone (Tables 3 and 6)",
            "Average precision at an IoU of 0.5 in percent on {scale.scenes} held-out scenes: 6 novel shapes, 18 base "
            f"ones, and all; mean and sample deviation over {len(SEEDS)} seeds of the head and of the order of "
            f"pictures. Each head learns from {PICTURES:,} scenes, from boxes of base shapes alone; the backbone is "
            "frozen. CLIPSelf with proposals has seen boxes of all shapes of other scenes, never a name; RegionCLIP "
            "has seen them too, and has guessed their words among those of captions, novel ones included; CLIPSelf "
            "with image patches has seen no box.",
            True,
            _fvit,
        ),
        Part(
            "c4",
            "RegionCLIP's detector",
            f"As above, but the tower learns, and boxes are a proposer's (as `{PROPOSER}`: learned from boxes of base "
            f"shapes on `{BACKBONE}`); overlaps lower scores. The paper's figures are of a ResNet-50 on COCO.",
            True,
            _c4,
        ),
        Part(
            "shipped",
            "The detector that ships",
            f"`{DETECTOR}`, an F-ViT with outlines on `{BACKBONE}`; average precision at an IoU of 0.5 of boxes and of "
            "masks, {scale.scenes} held-out scenes.",
            False,
            _shipped,
        ),
        Part(
            "fusion",
            "How much of a score is CLIP's",
            f"`{DETECTOR}`, {{scale.scenes}} held-out scenes: alpha is CLIP's share for base shapes, beta for novel "
            "ones.",
            False,
            _fusion,
        ),
    ),
)
