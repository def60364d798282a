"""The dense map against ``encode_image`` of the same size, bf16 against fp32, and windows against global attention.

Run: python -m benches.dense [--quick]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benches.common import Comparison, compare, finish
from closeup.models import Clip, load
from closeup.models.token_tower import TokenTower

TOWERS = ("tiny", "ViT-B-16", "EVA02-B-16", "RN50", "ViT-B-16-SigLIP")
SIZES = {"tiny": (64, 256)}
QUICK = ("tiny", "ViT-B-32")


def main(quick: bool) -> None:
    """Measure every tower."""
    rows: list[Comparison] = []
    for name in QUICK if quick else TOWERS:
        for size in SIZES.get(name, (224,) if quick else (224, 512)):
            rows += _tower(name, size)
    finish("dense", rows)


def _tower(name: str, size: int) -> list[Comparison]:
    clips = {precision: load(f"random:{name}", precision=precision) for precision in ("fp32", "bf16")}
    images = torch.randn(1, 3, size, size)
    rows = [
        compare(
            f"{name} {size}px {precision} dense",
            _call(clip.encode_dense, images),
            "encode_image",
            _call(clip.encode_image, images),
            target="<= 1.05",
        )
        for precision, clip in clips.items()
    ]
    rows.append(_half(name, size, clips, images))
    if isinstance(clips["fp32"].tower, TokenTower) and size > clips["fp32"].image_size[0]:
        rows += [_windowed(name, size, precision, clip, images) for precision, clip in clips.items()]
    return rows


def _windowed(name: str, size: int, precision: str, clip: Clip, images: Tensor) -> Comparison:
    return compare(
        f"{name} {size}px {precision} dense in native windows",
        _call(partial(clip.encode_dense, window="native"), images),
        "global attention",
        _call(clip.encode_dense, images),
        target="< 1",
    )


def _half(name: str, size: int, clips: dict[str, Clip], images: Tensor) -> Comparison:
    return compare(
        f"{name} {size}px dense bf16",
        _call(clips["bf16"].encode_dense, images),
        "fp32",
        _call(clips["fp32"].encode_dense, images),
        target="<= 0.4 with AMX" if (name, size) == ("ViT-B-16", 512) else "",
    )


def _call(encode: Callable[[Tensor], Tensor], images: Tensor) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with torch.inference_mode():
            return encode(images)

    return run


if __name__ == "__main__":
    main("--quick" in sys.argv)
