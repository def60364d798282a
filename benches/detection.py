"""Detection: the attention pool of many regions, and pictures in few and in many words.

Run: python -m benches.detection [--quick]
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch

from benches.common import Comparison, compare, finish
from closeup.data.world import World
from closeup.heads.saved import new_detector
from closeup.models import load
from closeup.models.attention_pool import pool_regions
from closeup.predict import detect
from closeup.predict.words import as_bank

REGIONS = 100
FEW, MANY = 3, 1203


def main(quick: bool) -> None:
    """Measure both."""
    finish("detection", [_pool(), _words("tiny" if quick else "ViT-B-16", 128 if quick else 640)])


def _pool() -> Comparison:
    """Measure RegionCLIP's pool over regions of an RN50: one absorbed query against open_clip's own, all of them."""
    clip = load("random:RN50", device="cpu", precision="fp32")
    pool: Any = clip.model.visual.attnpool
    side = clip.image_size[0] // clip.patch
    regions = torch.randn(REGIONS, 2048, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        one, every = pool_regions(pool, regions, pool.positional_embedding), pool(regions)
        if float((one - every).abs().max()) > 1e-5 * float(every.abs().max()):
            raise SystemExit("The absorbed query does not give what the whole pool gives.")
        return compare(
            f"attention pool of {REGIONS} regions, 2048 x {side} x {side}, one query",
            lambda: pool_regions(pool, regions, pool.positional_embedding),
            "open_clip's, every query",
            lambda: pool(regions),
            target="<= 0.25",
        )


def _words(name: str, size: int) -> Comparison:
    """Measure an untrained F-ViT on a picture in many words against few: words are embedded once, beforehand."""
    clip = load(f"random:{name}", device="cpu")
    torch.manual_seed(0)
    detector = new_detector(clip, ["star", "circle"], [False, False], templates="simple", size=size, config={})
    detector.head.eval()
    picture = np.asarray(World("test", count=1)[0].load())
    few, many = (as_bank(clip, [f"word {index}" for index in range(count)]) for count in (FEW, MANY))
    return compare(
        f"{name} at {size} px, F-ViT in {MANY:,} words",
        lambda: detect(detector, picture, many),
        f"in {FEW} words",
        lambda: detect(detector, picture, few),
        target="<= 1.2",
        repeats=5,
    )


if __name__ == "__main__":
    main("--quick" in sys.argv)
