"""Pictures beside DenseCLIP's tables."""

from __future__ import annotations

import PIL.Image

from closeup.heads.dense_predictor import load_dense_predictor
from closeup.predict.dense_predictor import DensePredictorScorer
from closeup.reproduce.ovseg_pictures import scorers_sheet


def shipped_sheet(head: str) -> PIL.Image.Image:
    """Return a few held-out scenes, the truth and what a dense predictor calls every pixel: a row per scene."""
    predictor = load_dense_predictor(head)
    return scorers_sheet({"DenseCLIP": DensePredictorScorer(predictor)})
