"""The settings of heads that learn from masks, and the papers'."""

from __future__ import annotations

from dataclasses import replace

from closeup.recipes.config import TrainConfig
from closeup.recipes.detection_config import DetectionConfig, Presets, Settings, tiny


def masks_paper(images: int) -> Settings:
    """Return OVSeg's training of its mask proposer on COCO-Stuff with a ResNet, whatever the number of pictures.

    120,000 steps of 32 pictures of 512 px, AdamW at 2e-4 with decay 1e-4, 1500 steps of warm-up, gradients clipped at
    0.01. There the rate falls polynomially, here on a cosine; colours are not changed here.

    Source: ``facebookresearch/ov-seg`` ``configs/ovseg_R101c_vitB_bs32_120k.yaml``.
    """
    return (
        DetectionConfig(size=512, jitter=(0.5, 2.0), templates="vild-14"),
        _training(steps=120_000, batch_size=32, warmup=1500),
        {},
    )


def masks_tiny(images: int) -> Settings:
    """Return what suits a proposer of masks on tiny and the world: one visit to each of a number of pictures."""
    seen, training, _ = tiny(images)
    head = {
        "regions": "things",
        "queries": 24,
        "channels": 64,
        "hidden": 64,
        "heads": 4,
        "layers": 3,
        "feed_forward": 256,
        "dropout": 0.0,
    }
    return seen, replace(training, rate=5e-4), {**head, "words_hidden": 256}


def catseg_paper(images: int) -> Settings:
    """Return CAT-Seg's training on COCO-Stuff with ViT-B/16, whatever the number of pictures.

    80,000 steps of 4 pictures of 384 px, AdamW at 2e-4 (the CLIP at a hundredth of it), decay 1e-4 (here not of the
    CLIP, whose keys must stay where they are), gradients clipped at 0.01.

    Source: ``KU-CVLAB/CAT-Seg`` ``configs/vitb_384.yaml``.
    """
    return (
        DetectionConfig(size=384, jitter=(0.5, 2.0), templates="cat-seg"),
        _training(steps=80_000, batch_size=4, warmup=0),
        {},
    )


def catseg_tiny(images: int) -> Settings:
    """Return what suits a CAT-Seg on tiny and the world: one visit to each of a number of pictures, a frozen CLIP."""
    seen, training, _ = tiny(images)
    widths = {"hidden": 32, "appearance": 32, "meaning": 32, "window": 8, "decoder": (32, 16), "guidance": (16, 8)}
    head = {**widths, "heads": 2, "guides": (32, 16), "padding": 40, "tune": "nothing"}
    return seen.replace(size=128), replace(training, rate=1e-3), head


def _training(*, steps: int, batch_size: int, warmup: int) -> TrainConfig:
    """Return what both papers train with: AdamW at 2e-4, decay 1e-4, gradients clipped at 0.01."""
    return TrainConfig(
        steps=steps,
        batch_size=batch_size,
        rate=2e-4,
        weight_decay=1e-4,
        betas=(0.9, 0.999),
        epsilon=1e-8,
        warmup=warmup,
        clip_norm=0.01,
        workers=4,
        save_every=2500,
    )


MASKS_PRESETS: Presets = {"paper": masks_paper, "tiny": masks_tiny}
"""Of proposers of masks."""

CATSEG_PRESETS: Presets = {"paper": catseg_paper, "tiny": catseg_tiny}
"""Of CAT-Seg."""
