"""What the paper says of DenseCLIP, with where each figure is known from."""

from __future__ import annotations

from collections.abc import Mapping

from closeup.reproduce.result import Paper

MIOU, PARAMETERS, OPERATIONS = "mIoU", "parameters (M)", "operations (G)"
RANDOM_ROW = "random start, plain pyramid"
PLAIN_ROW = "CLIP, plain pyramid"
SCORES_ROW = "+ score map"
PRE_ROW = "+ contexts made of the picture (pre)"
POST_ROW = "+ words moved by the picture (post)"
WHOLE_ROW = "+ auxiliary loss: DenseCLIP"
ADAPTED_ROW = "DenseCLIP on CLIPSelf"

_README = "README of raoyongming/DenseCLIP, ADE20K, Semantic FPN, single scale"
SEGMENTED: Mapping[str, Paper] = {
    RANDOM_ROW: Paper(38.6, "project page of DenseCLIP, ResNet-50 from ImageNet (ours starts at random)"),
    PLAIN_ROW: Paper(39.6, f"{_README}, ResNet-50"),
    WHOLE_ROW: Paper(43.5, f"{_README}, ResNet-50"),
}

_COUNTED = "raoyongming/DenseCLIP, counted from its formulas, text tower left out"
SIZED: Mapping[str, Mapping[str, Paper]] = {
    name: {PARAMETERS: Paper(parameters, _COUNTED), OPERATIONS: Paper(operations, _README)}
    for name, parameters, operations in (
        ("ResNet-50, plain pyramid", 31.04, 248.8),
        ("ResNet-50, DenseCLIP", 50.25, 269.2),
        ("ResNet-101, plain pyramid", 50.03, 326.6),
        ("ResNet-101, DenseCLIP", 67.80, 346.3),
        ("ViT-B/16, plain pyramid", 101.28, 1037.4),
        ("ViT-B/16, DenseCLIP", 105.27, 1043.1),
    )
}
"""The README has 100.8 M for the plain ViT: with positions for 512 px, not for the 640 px of its configuration."""

BOX_AP, MASK_AP = "box AP", "mask AP"
_DETECTED = "README of raoyongming/DenseCLIP, COCO, ResNet-50, 12 epochs"
DETECTED: Mapping[str, Mapping[str, Paper]] = {
    "RetinaNet, plain": {BOX_AP: Paper(36.9, _DETECTED)},
    "RetinaNet, DenseCLIP": {BOX_AP: Paper(37.8, _DETECTED)},
    "Mask R-CNN, plain": {BOX_AP: Paper(39.3, _DETECTED), MASK_AP: Paper(36.8, _DETECTED)},
    "Mask R-CNN, DenseCLIP": {BOX_AP: Paper(40.2, _DETECTED), MASK_AP: Paper(37.6, _DETECTED)},
}
