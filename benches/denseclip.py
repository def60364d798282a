"""A trained DenseCLIP without its text tower: against a plain pyramid, and against running the text tower each time.

Run: python -m benches.denseclip [--quick]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

from benches.common import compare, finish
from closeup.data.class_lists import class_names
from closeup.heads.dense_predictor import (
    DensePredictor,
    load_dense_predictor,
    new_dense_predictor,
    save_dense_predictor,
)
from closeup.heads.operations import count_operations
from closeup.models import Clip, load


def main(quick: bool) -> None:
    """Compare one picture through the exported model with both baselines."""
    name, size = ("tiny", 128) if quick else ("RN50", 512)
    words = class_names("ade20k-150")
    clip = load(f"random:{name}", device="cpu", precision="fp32")
    plain, whole = _made(clip, words, size, language=False), _made(clip, words, size, language=True)
    with tempfile.TemporaryDirectory() as folder:
        exported = load_dense_predictor(
            save_dense_predictor(whole, Path(folder) / "head"), device="cpu", precision="fp32"
        )
    if [part for part, _ in exported.clip.model.named_children()] != ["visual"] or exported.head.prompting is None:
        raise SystemExit("The exported model still has a text tower.")
    images = torch.randn(1, 3, size, size)
    contexts = whole.head.prompting.contexts if whole.head.prompting is not None else None
    if contexts is None:
        raise SystemExit("Nothing was learned about the words.")
    with torch.inference_mode():
        counted = {
            "plain": count_operations(lambda: plain.head.read(images)),
            "exported": count_operations(lambda: exported.head.read(images)),
            "text": count_operations(contexts),
        }
        told = f"DenseCLIP on {name} in {len(words)} words, {size} px, text tower deleted"
        against_plain = compare(
            told,
            lambda: exported.head.read(images),
            "a plain pyramid on the same tower",
            lambda: plain.head.read(images),
            target="<= 1.25",
        )
        against_text = compare(
            told,
            lambda: exported.head.read(images),
            "running the text tower for each picture, as the official code does",
            lambda: (contexts(), whole.head.read(images)),
            target="<= 0.75",
        )
    giga = {f"{part}_gmac": round(count / 1e9, 2) for part, count in counted.items()}
    finish("denseclip", [against_plain, against_text], **giga)


def _made(clip: Clip, words: tuple[str, ...], size: int, *, language: bool) -> DensePredictor:
    torch.manual_seed(0)
    config = {"language": language}
    made = new_dense_predictor(clip, words, [False] * len(words), templates="simple", size=size, config=config)
    made.head.eval()
    return made


if __name__ == "__main__":
    main("--quick" in sys.argv)
