"""Trains a small recipe in this process of several, and writes the weights; started by test_many_processes.py."""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors.torch import save_file

from closeup.data.world import World
from closeup.data.world.stream import WorldStream
from closeup.models.clip import Clip
from closeup.models.load import load
from closeup.recipes.clipself import ClipSelf
from closeup.recipes.clipself_config import ClipSelfConfig
from closeup.recipes.config import TrainConfig
from closeup.recipes.pretrain import Pretrain
from closeup.recipes.recipe import Recipe
from closeup.recipes.train import train


def build(recipe: str, clip: Clip) -> Recipe:
    if recipe == "pretrain":
        return Pretrain(clip, WorldStream(batch=8), probes=6)
    return ClipSelf(clip, World("train", count=24, size=(64, 96)), ClipSelfConfig(size=64, keep_global=0.5))


def main(recipe: str, folder: Path) -> None:
    clip = load("random:tiny", device="cpu", precision="fp32")
    config = TrainConfig(steps=3, batch_size=8, rate=3e-4, precision="fp32", workers=0, log_every=1, evaluate_every=99)
    train(build(recipe, clip), config, folder)
    weights = {name: value.detach().clone().contiguous() for name, value in clip.model.state_dict().items()}
    save_file(weights, folder / "weights.safetensors")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
