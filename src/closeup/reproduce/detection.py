"""The tables of open-vocabulary detection on the world: base shapes teach, novel ones are found by their words."""

from __future__ import annotations

from closeup.reproduce import detection_tables as tables
from closeup.reproduce.detection_models import PICTURES, SEEDS, made_detector
from closeup.reproduce.detection_pictures import found_sheet
from closeup.reproduce.measure import Measurements, Scale
from closeup.reproduce.run import Found, Part, Reproduction, Wanted
from closeup.reproduce.trainings import QUICK_SHARE

DETECTOR = "tiny-fvit"
"""The detector that ships, on tiny-clipself."""

QUICK = Scale(scenes=4, workers=0)


def _fvit(wanted: Wanted, measured: Measurements) -> Found:
    seeds, share = (SEEDS[:2], QUICK_SHARE) if wanted.quick else (SEEDS, 1.0)
    trained = {
        row: [str(made_detector(model, seed, wanted.work, share=share)) for seed in seeds]
        for row, model in tables.BACKBONES.items()
    }
    rows, findings = tables.detectors(measured, trained)
    first = {row: folders[0] for row, folders in trained.items()}
    pictures = {
        "backbones": (found_sheet(first), "What the detector of each backbone finds (seed 0, scores from 0.3).")
    }
    return Found(rows, findings, pictures)


def _fusion(_: Wanted, measured: Measurements) -> Found:
    rows, findings = tables.fusion(measured, DETECTOR)
    sheet = found_sheet({"F-ViT on tiny-clipself": DETECTOR})
    return Found(rows, findings, {"found": (sheet, "What the detector that ships finds (scores from 0.3).")})


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
            "frozen. The backbones adapted with proposals have seen boxes of all shapes of other scenes, never a name; "
            "the one with image patches has seen no box.",
            True,
            _fvit,
        ),
        Part(
            "fusion",
            "How much of a score is CLIP's",
            f"The detector that ships (`{DETECTOR}`, on `tiny-clipself`), {{scale.scenes}} held-out scenes: alpha is "
            "CLIP's share for base shapes, beta for novel ones.",
            False,
            _fusion,
        ),
    ),
)
