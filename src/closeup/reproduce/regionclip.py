"""RegionCLIP's tables on the world: which models, which pictures, in which order."""

from __future__ import annotations

from closeup.reproduce import regionclip_tables as tables
from closeup.reproduce.detection_models import PROPOSER, shipped_head
from closeup.reproduce.detection_pictures import named_sheet
from closeup.reproduce.measure import Measurements, Scale
from closeup.reproduce.regionclip_models import ablation_trainings, concepts, shipped_training
from closeup.reproduce.run import Found, Part, Reproduction, Wanted
from closeup.reproduce.trainings import ABLATION_PICTURES, ABLATION_SIZE, made

QUICK = Scale(scenes=4, trend_scenes=3, close_ups=12, curve_close_ups=12, size=64, workers=0)


def models(wanted: Wanted, measured: Measurements) -> dict[str, str]:
    """Return the models of the tables by their row's name: those that ship, RegionCLIP's made again on demand."""
    if not wanted.train:
        return dict(tables.ROWS)
    again = made(shipped_training(concepts(wanted, measured.counter)), wanted)
    return {**tables.ROWS, tables.REGIONCLIP_ROW: again}


def _zero_shot(wanted: Wanted, measured: Measurements) -> Found:
    chosen = models(wanted, measured)
    proposer = shipped_head(PROPOSER, wanted)
    rows, findings = tables.zero_shot(measured, chosen, proposer)
    sheet = named_sheet({row: measured.clip(model) for row, model in chosen.items()}, measured.scale.size)
    return Found(rows, findings, {"named": (sheet, "What each model calls the true boxes, and how sure it is.")})


def _forgetting(wanted: Wanted, measured: Measurements) -> Found:
    rows, findings = tables.forgetting(measured, models(wanted, measured))
    return Found(rows, findings, {})


def _losses(wanted: Wanted, measured: Measurements) -> Found:
    trainings = ablation_trainings(concepts(wanted, measured.counter))
    rows, findings = tables.losses(measured, {row: made(each, wanted) for row, each in trainings.items()})
    return Found(rows, findings, {})


REGIONCLIP = Reproduction(
    name="regionclip",
    title="RegionCLIP on the world",
    paper="Zhong et al., RegionCLIP: Region-based Language-Image Pretraining, CVPR 2022, arXiv 2112.09106",
    scale=Scale(),
    quick=QUICK,
    parts=(
        Part(
            "zero-shot",
            "Boxes named without a detector's training (Table 4)",
            "Accuracy in percent among all 34 names of the world, and average precision at an IoU of 0.5 among its 24 "
            "shapes, on {scale.scenes} held-out scenes at {scale.size} px. True boxes leave only the naming; proposals "
            f"are those of `{PROPOSER}`, which learned from boxes of base shapes. Concepts come from captions, regions "
            "from the boxes of the training scenes, of all shapes, without their classes.",
            False,
            _zero_shot,
        ),
        Part(
            "forgetting",
            "What is gained, and what is forgotten",
            "Regions as above; whole images are {scale.close_ups:,} close-ups: zero-shot accuracy over shape, four "
            "attributes and ground, and retrieval R@1, mean of both directions.",
            False,
            _forgetting,
        ),
        Part(
            "losses",
            "Ablation: which losses",
            f"{ABLATION_PICTURES:,} scenes each, student at {ABLATION_SIZE} px; top-1 in percent at that size on "
            "{scale.trend_scenes} held-out scenes, and {scale.curve_close_ups} close-ups for whole images.",
            True,
            _losses,
        ),
    ),
)
