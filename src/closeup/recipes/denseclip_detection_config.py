"""How DenseCLIP's detectors are trained: the paper's settings, and those for small models."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from closeup.recipes.config import TrainConfig
from closeup.recipes.detection_config import DetectionConfig, Presets, Settings, tiny

RETINANET, MASK_RCNN = {"head": "retinanet"}, {"head": "mask-rcnn"}


def paper_retinanet(images: int) -> Settings:
    """Return DenseCLIP's training of RetinaNet on COCO: 12 epochs of batches of 16, AdamW at 1e-4 with decay 1e-4.

    500 steps of warm-up, gradients clipped at 0.1, pictures mirrored. There the shortest side has 800 px and the
    longest 1333 at most, here the longest has 1067, as of a picture of 4:3 there; the rate falls to a tenth after 8 and
    after 11 epochs, here on a cosine; and the image tower's weights decay too.

    Source: ``raoyongming/DenseCLIP`` ``detection/configs``.
    """
    training = TrainConfig(
        steps=12 * ceil(images / 16),
        batch_size=16,
        rate=1e-4,
        weight_decay=1e-4,
        betas=(0.9, 0.999),
        epsilon=1e-8,
        warmup=500,
        clip_norm=0.1,
        workers=4,
        save_every=2500,
    )
    return DetectionConfig(size=1067, jitter=(), templates="simple"), training, RETINANET


def paper_mask_rcnn(images: int) -> Settings:
    """Return DenseCLIP's training of Mask R-CNN on COCO: as RetinaNet's, but at 2e-4."""
    seen, training, _ = paper_retinanet(images)
    return seen, replace(training, rate=2e-4), MASK_RCNN


def tiny_retinanet(images: int) -> Settings:
    """Return what suits a RetinaNet on tiny and the world: one visit to each picture, narrow, 192 px."""
    seen, training, _ = tiny(images)
    return (
        seen.replace(size=192),
        training,
        {**RETINANET, "channels": 64, "contexts": 4, "decoder_width": 64, "candidates": 200},
    )


def tiny_mask_rcnn(images: int) -> Settings:
    """Return what suits a Mask R-CNN on tiny and the world: as wide as F-ViT's, but 192 px, half the work of 256."""
    seen, training, _ = tiny(images)
    narrow = {"channels": 64, "hidden": 64, "layers": 256, "contexts": 4, "decoder_width": 64}
    few = {"candidates": 200, "proposals": 150, "regions": 64}
    return seen.replace(size=192), training, {**MASK_RCNN, **narrow, **few}


RETINANET_PRESETS: Presets = {"paper-retinanet": paper_retinanet, "tiny": tiny_retinanet}
"""Of RetinaNet."""

MASK_RCNN_PRESETS: Presets = {"paper-mask-rcnn": paper_mask_rcnn, "tiny": tiny_mask_rcnn}
"""Of Mask R-CNN."""
