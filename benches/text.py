"""A text bank: one prompt at a time, as it is built, and from the disk cache.

Run: python -m benches.text [--quick]
"""

from __future__ import annotations

import sys
import tempfile

import torch

from benches.common import compare, finish
from closeup.models import load
from closeup.text import Vocabulary, build_bank, get_templates


def main(quick: bool) -> None:
    """Measure a vocabulary of twenty words."""
    clip = load("random:tiny" if quick else "random:ViT-B-32")
    words = Vocabulary([f"word number {index}" for index in range(4 if quick else 20)])
    templates = "simple" if quick else "vild-14"
    formats = get_templates(templates).formats
    prompts = [text.format(name) for name in words.names for text in formats]

    def one_by_one() -> torch.Tensor:
        return torch.cat([clip.encode_text([prompt]) for prompt in prompts])

    with tempfile.TemporaryDirectory() as folder:
        built = compare(
            f"build a bank of {len(prompts)} prompts",
            lambda: build_bank(clip, words, templates=templates, cache=False),
            "one prompt at a time",
            one_by_one,
            target="<= 1.0",
            repeats=3,
            warm_up=1,
        )
        cached = compare(
            f"read a bank of {len(prompts)} prompts",
            lambda: build_bank(clip, words, templates=templates, cache_dir=folder),
            "build",
            lambda: build_bank(clip, words, templates=templates, cache=False),
            target="<= 0.1",
            repeats=3,
            warm_up=1,
        )
    finish("text", [built, cached])


if __name__ == "__main__":
    main("--quick" in sys.argv)
