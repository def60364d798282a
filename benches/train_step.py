"""Training steps: CLIPSelf against the plain form of the official one, and explicit attention in a contrastive step.

Run: python -m benches.train_step [--quick]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median

import torch
from torch import nn

from benches.common import Comparison, compare, finish
from benches.official_clipself import OfficialStep
from benches.pictures import write_pictures
from closeup.data.registry import open_reader
from closeup.models import load
from closeup.models.explicit_attention import explicit_attention
from closeup.recipes.clipself import ClipSelf
from closeup.recipes.clipself_config import ClipSelfConfig
from closeup.recipes.config import TrainConfig
from closeup.recipes.optimizers import make_optimizers
from closeup.recipes.order import ShardedBatches, loader
from closeup.recipes.recipe import Batch
from closeup.recipes.step import Stepper, freeze_all_but_trainable, make_accelerator

BATCH = 64
TOLERANCE = 0.003
"""How far the two forms' losses may lie apart: half precision, in the towers and in the cache, and nothing else."""

CHECKED = 2
"""Steps before the clock runs, whose losses are compared."""


def main(quick: bool) -> None:
    """Measure both, and print how many pictures a second they are."""
    contrastive = _contrastive()
    tiny = _clipself("tiny", size=64 if quick else 256, batch=8, repeats=3 if quick else 7)
    rows = [contrastive, tiny]
    speeds = {"tiny contrastive": _speeds(contrastive, BATCH), "tiny clipself": _speeds(tiny, 8)}
    if not quick:
        large = _clipself("ViT-B-16", size=512, batch=2, repeats=3)
        rows.append(large)
        speeds["ViT-B-16 clipself"] = _speeds(large, 2)
    finish("train_step", rows, images_per_second=speeds)


def _speeds(row: Comparison, batch: int) -> dict[str, float]:
    ours, baseline = batch / median(row.ours), batch / median(row.baseline)
    return {"ours": round(ours, 2), "baseline": round(baseline, 2), "ratio": round(ours / baseline, 2)}


def _contrastive() -> Comparison:
    """Measure forward and backward of tiny in bf16, attention written out and fused."""
    clip = load("random:tiny", device="cpu")
    clip.model.train()
    images = torch.randn(BATCH, 3, *clip.image_size)
    tokens = clip.tokenizer(["a red star"] * BATCH)

    def step(attention: Callable[[nn.Module], AbstractContextManager[None]]) -> Callable[[], None]:
        def run() -> None:
            with attention(clip.model), torch.autocast("cpu", torch.bfloat16):
                image, text, scale = clip.model(images, tokens)[:3]
                loss = (scale * image @ text.T).logsumexp(dim=1).mean()
            loss.backward()
            clip.model.zero_grad()

        return run

    return compare(
        f"tiny, {BATCH} pictures, bf16, explicit attention",
        step(explicit_attention),
        "fused attention",
        step(lambda _: nullcontext()),
        target="<= 0.8",
    )


def _clipself(name: str, *, size: int, batch: int, repeats: int) -> Comparison:
    """Measure whole steps, from pictures on disk to moved weights; both forms see the same regions."""
    steps = CHECKED + repeats
    with tempfile.TemporaryDirectory() as made:
        folder = write_pictures(Path(made) / "pictures", 4 * batch)
        config = TrainConfig(steps=steps, batch_size=batch, rate=1e-5, betas=(0.9, 0.999), epsilon=1e-8, workers=0)
        distilled = ClipSelfConfig(size=size)
        ours = _our_step(name, folder, config, distilled, Path(made) / "cache")
        theirs = OfficialStep(f"random:{name}", folder, config, distilled)
        for _ in range(CHECKED):
            mine, plain = ours(), theirs()
            if abs(mine - plain) > TOLERANCE:
                raise SystemExit(f"The two forms of the step disagree: loss {mine:.4f} and {plain:.4f}.")
        return compare(
            f"{name}, CLIPSelf at {size} px, {batch} pictures, cached teacher",
            ours,
            "official form, fp32",
            theirs,
            target="<= 0.5",
            repeats=repeats,
            warm_up=0,
        )


def _our_step(
    name: str, folder: Path, config: TrainConfig, distilled: ClipSelfConfig, cache: Path
) -> Callable[[], float]:
    """Return the training loop's own step, with the teacher's embeddings that it will need in the cache."""
    clip = load(f"random:{name}", device="cpu")
    recipe = ClipSelf(clip, open_reader(str(folder)), distilled, seed=config.seed, cache=cache)
    _fill(recipe, config.steps * config.batch_size)
    optimizers = make_optimizers(recipe, freeze_all_but_trainable(recipe), config)
    step = Stepper(recipe, optimizers, make_accelerator(config), config)
    feed: Iterator[Batch] = iter(loader(recipe, ShardedBatches(0, config.steps, config.batch_size), config.workers))
    numbers = iter(range(config.steps))
    return lambda: float(step(next(numbers), feed)["loss"])


def _fill(recipe: ClipSelf, visits: int) -> None:
    """Ask the teacher what a number of visits will want, and not all that might ever be drawn."""
    store = recipe.samples.store
    for position in range(visits):
        wanted = recipe.sample(position).regions
        if store is not None and wanted is not None:
            store.write(wanted.places, recipe.teacher(wanted.views))


if __name__ == "__main__":
    main("--quick" in sys.argv)
