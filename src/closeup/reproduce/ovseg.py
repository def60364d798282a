"""OVSeg's tables on the world: which models, which pictures, in which order."""

from __future__ import annotations

from closeup.reproduce import ovseg_tables as tables
from closeup.reproduce.detection_models import shipped_or_made
from closeup.reproduce.measure import Measurements, Scale
from closeup.reproduce.ovseg_models import (
    ADAPTED,
    PICTURES,
    PROPOSER,
    adapted_trainings,
    depth_trainings,
    order_trainings,
    proposer_training,
)
from closeup.reproduce.ovseg_pictures import segmented_sheet
from closeup.reproduce.run import Found, Part, Reproduction, Wanted
from closeup.reproduce.trainings import RAW, Training, made

QUICK = Scale(scenes=4, trend_scenes=3, size=64, workers=0)
SHIPPED_ROW = "tower, then mask prompts"


def _made(trainings: dict[str, Training], wanted: Wanted) -> dict[str, str]:
    return {row: made(training, wanted) for row, training in trainings.items()}


def _model(wanted: Wanted) -> str:
    """Return the adapted model that ships, or the folder where it is made again."""
    return _made(adapted_trainings(), wanted)[SHIPPED_ROW] if wanted.train else ADAPTED


def _adapted(wanted: Wanted, measured: Measurements) -> Found:
    models = _made(adapted_trainings(), wanted) if wanted.train else {SHIPPED_ROW: ADAPTED}
    rows, findings = tables.adapted(measured, models, shipped_or_made(proposer_training(), wanted))
    return Found(rows, findings, {})


def _ensemble(wanted: Wanted, measured: Measurements) -> Found:
    model, proposer = _model(wanted), shipped_or_made(proposer_training(), wanted)
    rows, findings = tables.ensemble(measured, model, proposer)
    sheet = segmented_sheet(measured.clip(RAW), measured.clip(model), proposer)
    return Found(rows, findings, {"segmented": (sheet, "Every pixel in words, by each part of OVSeg and by both.")})


def _order(wanted: Wanted, measured: Measurements) -> Found:
    first = _made(adapted_trainings(), wanted)
    rows, findings = tables.order(measured, {SHIPPED_ROW: first[SHIPPED_ROW], **_made(order_trainings(), wanted)})
    return Found(rows, findings, {})


def _depth(wanted: Wanted, measured: Measurements) -> Found:
    _made(adapted_trainings(), wanted)
    rows, findings = tables.depth(measured, _made(depth_trainings(), wanted))
    return Found(rows, findings, {})


def _oracle(wanted: Wanted, measured: Measurements) -> Found:
    rows, findings = tables.oracle(measured, _model(wanted), shipped_or_made(proposer_training(), wanted))
    return Found(rows, findings, {})


MASKS_NAMED = "Masks named: true masks cut out, top-1 in percent among all 34 words, {scale.scenes} held-out scenes. "
TRUE = "mIoU in percent is over {scale.trend_scenes} held-out scenes with true masks. "
LEARNED = (
    f"Each training sees the masks of base words of {PICTURES:,} scenes once, and no novel shape has a mask or a word."
)

OVSEG = Reproduction(
    name="ovseg",
    title="OVSeg on the world",
    paper="Liang et al., Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP, CVPR 2023, arXiv 2210.04150",
    scale=Scale(),
    quick=QUICK,
    parts=(
        Part(
            "adapted",
            "What is adapted (Table 3)",
            MASKS_NAMED + f"mIoU in percent of OVSeg with the proposer `{PROPOSER}`, "
            "{scale.trend_scenes} held-out scenes. " + LEARNED,
            False,
            _adapted,
        ),
        Part(
            "ensemble",
            "The proposer, CLIP, and both (Table 4)",
            f"mIoU in percent on {{scale.trend_scenes}} held-out scenes; `{PROPOSER}` learned masks and words of base "
            "shapes and grounds.",
            False,
            _ensemble,
        ),
        Part(
            "oracle",
            "With oracles",
            "mIoU in percent on {scale.trend_scenes} held-out scenes, with true masks, or with true words for the "
            "proposer's masks.",
            False,
            _oracle,
        ),
        Part("order", "What learns first (Table 5)", MASKS_NAMED + TRUE + LEARNED, True, _order),
        Part("depth", "At how many places prompts enter (Table 6)", MASKS_NAMED + TRUE + LEARNED, True, _depth),
    ),
)
