"""Both stages of fine-grained matching, from embeddings on disk, beside a plain loop over embeddings in memory.

Run: python -m benches.finegrained [--quick] [--fraction 0.05]

The paper's stages: 10 epochs each of 100,000 pairs and of 100,000 regions with 11 captions, as wide as ViT-B/16's. A
fraction takes the first so many of the steps and tells what all of them would take; 1 takes them all.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from math import cos, pi
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from benches.common import Comparison, finish
from closeup.match.losses import own_negatives_loss, triplet_loss
from closeup.match.matcher import Matcher
from closeup.match.matchers import new_matcher
from closeup.recipes.config import TrainConfig
from closeup.recipes.features import CARD, IMAGES, ITEMS, TEXTS, Features, open_features
from closeup.recipes.finegrained import FineTune, WarmUp
from closeup.recipes.finegrained_config import FineGrainedConfig, paper
from closeup.recipes.order import visited
from closeup.recipes.train import train

DIM = 512
LIMIT = 600.0
"""Seconds that both stages may take."""

TOLERANCE = 1e-4
"""How far a weight of the two forms may lie apart in the end."""


def main(fraction: float, items: int) -> None:
    """Train each matcher both ways, and print what whole trainings take."""
    with tempfile.TemporaryDirectory() as made:
        pairs = write_features(Path(made) / "pairs", items, items, 1, seed=0)
        regions = write_features(Path(made) / "regions", items, 2 * items, 11, seed=1)
        held = write_features(Path(made) / "held", items // 50, items // 25, 11, seed=2)
        rows = [_compared(kind, pairs, regions, held, fraction, Path(made)) for kind in ("linear", "mlp")]
    whole = {row.name.split(",")[0]: round(median(row.ours) / fraction, 1) for row in rows}
    told = "measured" if fraction == 1 else f"measured on {fraction:g} of the steps"
    finish("finegrained", rows, items=items, fraction=fraction, seconds_in_all=whole, limit_seconds=LIMIT, told=told)


def write_features(folder: Path, items: int, texts: int, captions: int, seed: int) -> Features:
    """Write random embeddings in the form of the store, a picture an item."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for name, count in ((IMAGES, items), (TEXTS, texts)):
        with (folder / name).open("wb") as file:
            for first in range(0, count, 10_000):
                part = rng.standard_normal((min(10_000, count - first), DIM), dtype=np.float32)
                file.write(part.astype(np.float16).tobytes())
    rows = np.concatenate([np.arange(items)[:, None], rng.integers(0, texts, (items, captions))], axis=1)
    (folder / ITEMS).write_bytes(rows.astype(np.int32).tobytes())
    card = {"dim": DIM, "pictures": items, "texts": texts, "items": items, "captions": captions}
    (folder / CARD).write_text(json.dumps(card))
    return open_features(folder)


def _compared(
    kind: str, pairs: Features, regions: Features, held: Features, fraction: float, folder: Path
) -> Comparison:
    config, warm, fine = paper(len(pairs), len(regions))
    if warm is None:
        raise SystemExit("The paper's settings have no warm-up.")
    warm, fine = (replace(each, steps=max(1, round(fraction * each.steps))) for each in (warm, fine))
    ours, plain = _untrained(kind), _untrained(kind)
    start = time.perf_counter()
    train(WarmUp(ours, pairs, held, config), warm, folder / f"{kind}-pairs")
    best = folder / f"{kind}-regions"
    best.mkdir()
    train(FineTune(ours, regions, held, config, best=best), fine, best)
    spent = time.perf_counter() - start
    tables = [_loaded(pairs), _loaded(regions)]
    start = time.perf_counter()
    _plain_stage(plain, *tables[0], warm, config, details=False)
    _plain_stage(plain, *tables[1], fine, config, details=True)
    base = time.perf_counter() - start
    for (name, mine), theirs in zip(ours.state_dict().items(), plain.state_dict().values(), strict=True):
        if float((mine - theirs).abs().max()) > TOLERANCE:
            raise SystemExit(f"The two forms of the training of {kind!r} disagree about {name}.")
    steps = warm.steps + fine.steps
    return Comparison(
        f"{kind}, {steps:,} steps of 256, embeddings on disk, log, ranks and states",
        [spent],
        "a plain loop, embeddings in memory in fp32, and nothing else",
        [base],
        "<= 1.15",
    )


def _untrained(kind: str) -> Matcher:
    torch.manual_seed(0)
    return new_matcher(kind, DIM)


def _loaded(features: Features) -> tuple[Tensor, Tensor, Tensor]:
    images, texts = (torch.from_numpy(np.array(table, dtype=np.float32)) for table in (features.images, features.texts))
    return images, texts, torch.from_numpy(np.asarray(features.items, dtype=np.int64))


def _plain_stage(
    matcher: Matcher,
    images: Tensor,
    texts: Tensor,
    items: Tensor,
    settings: TrainConfig,
    config: FineGrainedConfig,
    *,
    details: bool,
) -> None:
    """Take the same steps as the training loop does, as one would write them down."""
    size = settings.batch_size
    optimizer = torch.optim.Adam(matcher.parameters(), settings.rate, settings.betas, settings.epsilon)
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * (1 + cos(pi * step / settings.steps)) / 2
        rows = items[
            [visited(position, len(items), settings.seed) for position in range(step * size, (step + 1) * size)]
        ]
        regions, captions = images[rows[:, 0]], texts[rows[:, 1:]]
        if details:
            loss = own_negatives_loss(matcher.of_own(regions, captions), margin=config.margin)
        else:
            loss = triplet_loss(matcher(regions, captions[:, 0]), margin=config.pair_margin)
        (loss / size).backward()
        optimizer.step()
        optimizer.zero_grad()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a hundredth of the items, and few steps")
    parser.add_argument("--fraction", type=float, default=0.05, help="of all steps, 0 to 1")
    given = parser.parse_args()
    if not 0 < given.fraction <= 1:
        raise SystemExit(f"--fraction is {given.fraction}: give a number above 0, and 1 at most.")
    main(given.fraction, 1_000 if given.quick else 100_000)
