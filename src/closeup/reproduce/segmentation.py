"""Segmentation on raw and adapted CLIPs, on the world: which models, which pictures, in which order."""

from __future__ import annotations

from closeup.heads.segmenter import load_segmenter, new_segmenter
from closeup.heads.trained import save_head
from closeup.predict.catseg import CatSegScorer
from closeup.recipes.run_detection import Maker
from closeup.recipes.segmentation_config import CATSEG_PRESETS
from closeup.reproduce import segmentation_tables as tables
from closeup.reproduce.detection_models import HeadTraining, made_head, shipped_or_made
from closeup.reproduce.detection_tables import BACKBONES, KEPT_ROW, RAW_ROW
from closeup.reproduce.measure import Measurements, Scale
from closeup.reproduce.ovseg_models import PROPOSER, proposer_training
from closeup.reproduce.ovseg_pictures import scorers_sheet
from closeup.reproduce.run import Found, Part, Reproduction, Wanted
from closeup.reproduce.trainings import RAW

SEGMENTER = "tiny-catseg"
"""What ships."""
PICTURES = 3_600
"""Scenes that a CAT-Seg learns from, each once."""
QUICK = Scale(scenes=4, trend_scenes=3, size=64, workers=0)
MAKER = Maker(new_segmenter, save_head, CATSEG_PRESETS, grounds=True)


def catseg_trainings() -> dict[str, HeadTraining]:
    """Return the training of a CAT-Seg on each backbone; that on the adapted one ships."""
    made = {}
    names = {RAW_ROW: f"catseg-{RAW}", tables.LEARNING_ROW: f"catseg-{RAW}-learning", KEPT_ROW: SEGMENTER}
    for row, head in tables.TRAINED.items():
        made[row] = HeadTraining(names[row], BACKBONES.get(row, RAW), MAKER, head=head, pictures=PICTURES)
    return made


def _untrained(wanted: Wanted, measured: Measurements) -> Found:
    rows, findings = tables.untrained(measured)
    return Found(rows, findings, {})


def _catseg(wanted: Wanted, measured: Measurements) -> Found:
    trained = {row: made_head(training, wanted) for row, training in catseg_trainings().items()}
    rows, findings = tables.catseg(measured, trained)
    sheet = scorers_sheet({f"CAT-Seg, {row}": CatSegScorer(load_segmenter(folder)) for row, folder in trained.items()})
    return Found(rows, findings, {"catseg": (sheet, "Every pixel in words, by a CAT-Seg on each backbone.")})


def _panoptic(wanted: Wanted, measured: Measurements) -> Found:
    rows, findings = tables.panoptic(measured, shipped_or_made(proposer_training(), wanted))
    return Found(rows, findings, {})


SEGMENTATION = Reproduction(
    name="segmentation",
    title="Segmentation on raw and adapted CLIPs, on the world",
    paper="Wu et al., CLIPSelf, ICLR 2024, arXiv 2310.01403 (Tables 4 and 5); Cho et al., CAT-Seg, CVPR 2024, arXiv "
    "2303.11797; Xu et al., ODISE, CVPR 2023, arXiv 2303.04803; Zhou et al., MaskCLIP, ECCV 2022, arXiv 2112.01071",
    scale=Scale(),
    quick=QUICK,
    parts=(
        Part(
            "untrained",
            "Without any training (MaskCLIP)",
            "mIoU in percent on {scale.trend_scenes} held-out scenes at {scale.size} px, all 34 words; 6 of 24 shapes "
            "count as novel, though nothing was learned from the others. The last row of each backbone normalises keys "
            "over places, as the official code does.",
            False,
            _untrained,
        ),
        Part(
            "catseg",
            "CAT-Seg (CLIPSelf's Table 4)",
            f"mIoU in percent on {{scale.trend_scenes}} held-out scenes; each CAT-Seg learned from the label maps of "
            f"{PICTURES:,} scenes, base shapes and grounds, at 128 px, on a frozen CLIP unless a row says "
            "otherwise (then at the rate of the head); one seed. On raw the class token is every place's residual, as "
            "in the paper; on CLIPSelf the map is CLIPSelf's.",
            True,
            _catseg,
        ),
        Part(
            "panoptic",
            "Panoptic (CLIPSelf's Table 5)",
            f"Panoptic quality in percent on {{scale.trend_scenes}} held-out scenes; masks are those of `{PROPOSER}` "
            "and the gaps between them, read off each backbone's dense map.",
            False,
            _panoptic,
        ),
    ),
)
