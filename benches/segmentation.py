"""OVSeg on a photograph of 2000 x 1500 pixels in 150 words: its memory, and its crops in batches or one by one.

Run: python -m benches.segmentation [--quick]
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np
import PIL.Image
import torch

from benches.common import compare, finish
from closeup.data.class_lists import class_names
from closeup.heads.mask_proposer import new_mask_proposer
from closeup.models import load
from closeup.models.mask_prompt import give_prompts
from closeup.predict.segment import segment_by
from closeup.predict.segment_masks import OvSegScorer, looks

WIDTH, HEIGHT = 2000, 1500
LIMIT = 4.0
"""Gibibytes that the whole process may take."""


def main(quick: bool) -> None:
    """Segment once, in full; then compare batches of crops with single ones."""
    name, size = ("tiny", 128) if quick else ("ViT-B-16", 640)
    words = class_names("ade20k-150")
    clip = load(f"random:{name}", device="cpu")
    give_prompts(clip.tower, depth=3)
    torch.manual_seed(0)
    proposer = new_mask_proposer(
        clip, words[:20], [False] * 20, templates="simple", size=size, config={"queries": 20 if quick else 100}
    )
    proposer.head.eval()
    scorer = OvSegScorer(clip, proposer)
    photo = _photo()
    start = time.perf_counter()
    result = segment_by(scorer, photo, words)
    seconds = time.perf_counter() - start
    if result.label_map.shape != (HEIGHT, WIDTH):
        raise SystemExit("The result is not of the photograph's size.")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if peak > LIMIT:
        raise SystemExit(f"The process took {peak:.2f} GiB, and {LIMIT:g} are allowed.")
    canvas, _ = clip.preprocess(photo, policy="longest-pad-corner", size=size)
    planes = torch.rand(len(proposer.head.queries.queries_embedder.weight), *canvas.shape[1:]) > 0.5
    with torch.inference_mode():
        row = compare(
            f"{len(planes)} masks of a photograph seen by {name}, {scorer.batch} at a time",
            lambda: looks(clip, canvas, planes, "mask-prompt", scorer.batch),
            "one by one",
            lambda: looks(clip, canvas, planes, "mask-prompt", 1),
            target="<= 1",
            repeats=3,
            warm_up=1,
        )
    finish("segmentation", [row], peak_gib=round(peak, 3), limit_gib=LIMIT, words=len(words), seconds=round(seconds, 2))


def _photo() -> PIL.Image.Image:
    rng = np.random.default_rng(0)
    coarse = PIL.Image.fromarray(rng.integers(0, 256, (HEIGHT // 100, WIDTH // 100, 3), dtype=np.uint8))
    return coarse.resize((WIDTH, HEIGHT), PIL.Image.Resampling.BICUBIC)


if __name__ == "__main__":
    main("--quick" in sys.argv)
