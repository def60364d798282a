"""What ``closeup adapt denseclip`` learns besides the names of pixels: to find things, by two detectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from closeup.heads.dense_detector import new_dense_detector
from closeup.heads.dense_predictor import save_dense_predictor
from closeup.recipes.denseclip_detection_config import MASK_RCNN_PRESETS, RETINANET_PRESETS
from closeup.recipes.run_detection import Maker

Task: TypeAlias = Literal["segment", "detect", "instances"]
"""What a DenseCLIP learns to do."""

PAPER = "paper"
"""In the place of the name of a task's own paper preset."""

DETECTION_MAKERS: Mapping[Task, Maker] = {
    "detect": Maker(new_dense_detector, save_dense_predictor, RETINANET_PRESETS),
    "instances": Maker(new_dense_detector, save_dense_predictor, MASK_RCNN_PRESETS),
}
"""How a detector is made, trained on boxes, and saved."""

DETECTION_PAPERS: Mapping[Task, str] = {"detect": "paper-retinanet", "instances": "paper-mask-rcnn"}
"""Their papers' presets."""
