"""Trains a small recipe in this process of several, and writes what it has then; started by test_many_processes.py."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from safetensors.torch import save_file
from torch import Tensor

from closeup.data.world import World
from closeup.data.world.stream import WorldStream
from closeup.match.matcher import Seen
from closeup.match.matchers import new_matcher
from closeup.models.load import load
from closeup.recipes.clipself import ClipSelf
from closeup.recipes.clipself_config import ClipSelfConfig
from closeup.recipes.config import TrainConfig
from closeup.recipes.features import Features
from closeup.recipes.finegrained import FineTune, WarmUp
from closeup.recipes.finegrained_config import FineGrainedConfig
from closeup.recipes.pretrain import Pretrain
from closeup.recipes.recipe import Recipe
from closeup.recipes.regionclip import RegionClip
from closeup.recipes.regionclip_config import RegionClipConfig
from closeup.recipes.step import freeze_all_but_trainable, make_accelerator
from closeup.recipes.train import train

CONFIG = TrainConfig(steps=3, batch_size=8, rate=3e-4, precision="fp32", workers=0, log_every=1, evaluate_every=99)


def embeddings(items: int, captions: int, details: int = 0) -> Features:
    rng = np.random.default_rng(captions)
    rows = np.arange(items * captions).reshape(items, captions)
    table = np.concatenate([np.arange(items)[:, None], rows], axis=1).astype(np.int32)
    return Features(rng.standard_normal((items, 16 + details)), rng.standard_normal((items * captions, 16)), table)


def matching(recipe: str) -> Recipe:
    torch.manual_seed(0)
    details = 6 if recipe == "finegrained-levels" else 0
    pairs, regions = embeddings(20, 1, details), embeddings(20, 5, details)
    config = FineGrainedConfig(objective="softmax", keep=0.5)
    if recipe == "finegrained-pairs":
        return WarmUp(new_matcher("linear", 16), pairs, regions, config)
    seen = Seen((0,), details) if details else None
    if seen is not None:
        seen.learn(*regions.usual())
    return FineTune(new_matcher("mlp", 16, seen=seen), regions, regions, config, pairs=pairs)


def build(recipe: str) -> Recipe:
    if recipe.startswith("finegrained"):
        return matching(recipe)
    clip = load("random:tiny", device="cpu", precision="fp32")
    if recipe == "pretrain":
        return Pretrain(clip, WorldStream(batch=8), probes=6)
    if recipe == "regionclip":
        config = RegionClipConfig(
            size=64, concepts=str(Path(__file__).with_name("concepts.txt")), templates="simple", temperature=0.1
        )
        return RegionClip(clip, World("train", count=24, size=(64, 96)), config)
    return ClipSelf(clip, World("train", count=24, size=(64, 96)), ClipSelfConfig(size=64, keep_global=0.5))


def write(tensors: Mapping[str, Tensor], folder: Path, name: str) -> None:
    copies = {key: value.detach().clone().contiguous() for key, value in tensors.items()}
    save_file(copies, folder / f"{name}-{PartialState().process_index}.safetensors")


def write_gradients(recipe: Recipe, folder: Path) -> None:
    """Write this process's gradients of a batch that all share: through the wrapper for many processes, and around it.

    Around it is how the official code calls its model.
    """
    accelerator = make_accelerator(CONFIG)
    trained = freeze_all_but_trainable(recipe)
    wrapped = accelerator.prepare(recipe.module)
    share = CONFIG.batch_size // accelerator.num_processes
    first = share * accelerator.process_index
    batch = recipe.collate([recipe.sample(position) for position in range(first, first + share)])
    shared = batch["images"].new_tensor(float(recipe.terms(batch) or 0))
    batch = {**batch, "terms": accelerator.reduce(shared, reduction="mean")}
    for name, module in (("through", wrapped), ("around", recipe.module)):
        recipe.module.zero_grad()
        module(batch)["loss"].backward()
        write({key: value.grad for key, value in trained.items() if value.grad is not None}, folder, name)


def main(name: str, folder: Path) -> None:
    recipe = build(name)
    train(recipe, CONFIG, folder)
    write(recipe.module.state_dict(), folder, "weights")
    if name == "clipself":
        write_gradients(build(name), folder)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
