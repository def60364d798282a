"""Regions against the dense pass that they share, against torchvision's roi_align, and against crops.

Run: python -m benches.regions [--quick]
"""

from __future__ import annotations

import sys

import torch
from torchvision.ops import roi_align

from benches.common import Comparison, compare, finish
from closeup.models import load
from closeup.regions import pool_boxes, pool_masks

REGIONS = 100


def main(quick: bool) -> None:
    """Measure pooling and whole passes."""
    generator = torch.Generator().manual_seed(0)
    rows = [_pooling(side, generator) for side in ((32,) if quick else (32, 64))]
    rows += _passes("ViT-B-32" if quick else "ViT-B-16", 224 if quick else 512, generator)
    finish("regions", rows)


def random_boxes(count: int, side: float, generator: torch.Generator) -> torch.Tensor:
    """Return boxes of every size inside a square, xyxy."""
    corners = torch.rand(count, 2, 2, generator=generator) * side
    return torch.cat([corners.amin(dim=1), corners.amax(dim=1) + 0.5], dim=1)


def _pooling(side: int, generator: torch.Generator) -> Comparison:
    features = torch.randn(1, 512, side, side, generator=generator)
    boxes = random_boxes(2 * REGIONS, side - 1, generator)
    with torch.inference_mode():
        return compare(
            f"pool {2 * REGIONS} boxes, 512 x {side} x {side}",
            lambda: pool_boxes(features, [boxes]),
            "torchvision roi_align",
            lambda: roi_align(features, [boxes], (1, 1), aligned=True),
            target="<= 1.0",
        )


def _passes(name: str, size: int, generator: torch.Generator) -> list[Comparison]:
    clip = load(f"random:{name}")
    images = torch.randn(1, 3, size, size, generator=generator)
    cells = size // clip.patch
    boxes = random_boxes(REGIONS, cells - 1, generator)
    masks = torch.rand(REGIONS, cells, cells, generator=generator) > 0.8
    crops = torch.randn(2 * REGIONS, 3, *clip.image_size, generator=generator)

    def with_regions() -> object:
        maps = clip.encode_dense(images)
        return pool_boxes(maps, [boxes]), pool_masks(maps, [masks])

    with torch.inference_mode():
        shared = compare(
            f"{name} {size}px, {REGIONS} boxes + {REGIONS} masks",
            with_regions,
            "one dense pass",
            lambda: clip.encode_dense(images),
            target="<= 1.15",
        )
        against_crops = compare(
            f"{name} {size}px, {REGIONS} boxes + {REGIONS} masks",
            with_regions,
            f"{2 * REGIONS} crops",
            lambda: [clip.encode_image(part) for part in torch.split(crops, 50)],
            target="",
            repeats=1,
            warm_up=0,
        )
    return [shared, against_crops]


if __name__ == "__main__":
    main("--quick" in sys.argv)
