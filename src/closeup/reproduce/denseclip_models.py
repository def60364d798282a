"""The dense predictors behind DenseCLIP's tables: what each row starts from and learns with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from closeup.heads.dense_detector import new_dense_detector
from closeup.heads.dense_predictor import new_dense_predictor, save_dense_predictor
from closeup.recipes.denseclip_detection_config import MASK_RCNN_PRESETS, RETINANET_PRESETS
from closeup.recipes.label_maps import label_maps_teach
from closeup.recipes.label_maps_config import LABEL_MAP_PRESETS
from closeup.recipes.run_detection import Maker
from closeup.reproduce.denseclip_paper import (
    ADAPTED_ROW,
    PLAIN_ROW,
    POST_ROW,
    PRE_ROW,
    RANDOM_ROW,
    SCORES_ROW,
    WHOLE_ROW,
)
from closeup.reproduce.detection_models import HeadTraining
from closeup.reproduce.trainings import RAW

SHIPPED = "tiny-denseclip"
"""What ships: the whole of DenseCLIP on the CLIP that CLIPSelf adapted, on the world."""
STEPS = 300
"""Of 8 pictures, for every row of both tables."""
SIZE = 128
"""Side of the canvas in pixels."""

MAKER = Maker(new_dense_predictor, save_dense_predictor, LABEL_MAP_PRESETS, grounds=True, recipe=label_maps_teach)

PLAIN: Mapping[str, Any] = {"language": False}
ROWS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    RANDOM_ROW: (f"random:{RAW}", PLAIN),
    PLAIN_ROW: (RAW, PLAIN),
    SCORES_ROW: (RAW, {"prompts": "learned", "auxiliary": 0.0}),
    PRE_ROW: (RAW, {"prompts": "pre", "auxiliary": 0.0}),
    POST_ROW: (RAW, {"prompts": "post", "auxiliary": 0.0}),
    WHOLE_ROW: (RAW, {"prompts": "post"}),
    ADAPTED_ROW: ("tiny-clipself", {"prompts": "post", "route": "value"}),
}
"""The CLIP of each row, and its head."""


DETECTOR_STEPS = 300
"""Of 8 scenes, for every detector."""
RETINANET, MASK_RCNN = (
    Maker(new_dense_detector, save_dense_predictor, presets) for presets in (RETINANET_PRESETS, MASK_RCNN_PRESETS)
)
DETECTORS: Mapping[str, tuple[Maker, Mapping[str, Any]]] = {
    "RetinaNet, plain": (RETINANET, PLAIN),
    "RetinaNet, DenseCLIP": (RETINANET, {}),
    "Mask R-CNN, plain": (MASK_RCNN, PLAIN),
    "Mask R-CNN, DenseCLIP": (MASK_RCNN, {}),
}
"""How each row's detector is made, and its head."""


def detector_training(row: str) -> HeadTraining:
    """Return the training of a detector on the world; all shapes are learned."""
    maker, head = DETECTORS[row]
    name = f"denseclip-detector-{list(DETECTORS).index(row)}"
    seen = {"size": SIZE}
    return HeadTraining(name, RAW, maker, head=head, pictures=8 * DETECTOR_STEPS, config=seen, novel=())


def training(row: str, seed: int, data: str, images: str) -> HeadTraining:
    """Return the training of a row on a data set, by its name and its line."""
    model, head = ROWS[row]
    if model.startswith("random:"):
        model = f"{model}@{seed}"
    return HeadTraining(
        name=f"denseclip-{data}-{list(ROWS).index(row)}-{seed}",
        model=model,
        maker=MAKER,
        seed=seed,
        head=head,
        pictures=STEPS * 8,
        images=images,
        training={"steps": STEPS},
        novel=(),
    )


def shipped_training() -> HeadTraining:
    """Return the training of what ships: the best row, twice as long."""
    model, head = ROWS[ADAPTED_ROW]
    steps = 2 * STEPS
    return HeadTraining(SHIPPED, model, MAKER, head=head, pictures=8 * steps, training={"steps": steps}, novel=())
