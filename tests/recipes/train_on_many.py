"""Trains a small recipe in this process of several, and writes the weights; started by test_many_processes.py."""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors.torch import save_file

from closeup.data.world.stream import WorldStream
from closeup.models.load import load
from closeup.recipes.config import TrainConfig
from closeup.recipes.pretrain import Pretrain
from closeup.recipes.train import train


def main(folder: Path) -> None:
    clip = load("random:tiny", device="cpu", precision="fp32")
    config = TrainConfig(steps=3, batch_size=8, rate=3e-4, precision="fp32", workers=0, log_every=1, evaluate_every=99)
    train(Pretrain(clip, WorldStream(batch=8), probes=6), config, folder)
    weights = {name: value.detach().clone().contiguous() for name, value in clip.model.state_dict().items()}
    rank = sys.argv[2] if len(sys.argv) > 2 else ""
    save_file(weights, folder / f"weights{rank}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
