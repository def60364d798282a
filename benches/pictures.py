"""Photo-like pictures on disk: smooth shapes and some grain, at the sizes of COCO's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image

SIZES = ((480, 640), (640, 480), (427, 640))


def write_pictures(folder: Path, count: int) -> Path:
    """Write ``count`` JPEG files and return their folder."""
    folder.mkdir(parents=True)
    for index in range(count):
        height, width = SIZES[index % len(SIZES)]
        rng = np.random.default_rng(index)
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((width, height), PIL.Image.Resampling.BICUBIC), dtype=np.int16)
        grained = np.clip(pixels + rng.integers(-12, 13, pixels.shape), 0, 255).astype(np.uint8)
        PIL.Image.fromarray(grained).save(folder / f"{index:04d}.jpg", quality=90)
    return folder
