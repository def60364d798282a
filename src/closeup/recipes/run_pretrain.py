"""One pre-training from a configuration to a folder that open_clip loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from closeup.data.registry import open_reader
from closeup.data.world.stream import WorldStream
from closeup.models.checkpoint import save_local_dir
from closeup.models.clip import Clip
from closeup.models.load import load
from closeup.recipes.captioned import Captioned, ReaderStream
from closeup.recipes.config import TrainConfig
from closeup.recipes.pretrain import Pretrain
from closeup.recipes.runs import check_output, last_logged, run_folder, surroundings
from closeup.recipes.train import train

WORLD = "world"
"""The data set that needs no files: the embedded world's endless stream."""


def tiny_config() -> TrainConfig:
    """Return the configuration that made tiny: about an hour and a half on two cores with bf16 instructions."""
    return TrainConfig(
        steps=6000,
        batch_size=128,
        rate=1e-3,
        optimizer="muon",
        warmup=200,
        clip_norm=1.0,
        log_every=20,
        evaluate_every=250,
        save_every=250,
    )


RAMP = 0.55
"""The share of the training over which the world's close-ups grow from easy to as varied as they come."""


def pretrain(
    out: str | Path,
    *,
    architecture: str = "tiny",
    data: str = WORLD,
    config: TrainConfig | None = None,
    resume: bool = False,
) -> tuple[Path, dict[str, float]]:
    """Train a CLIP from random weights and save it at ``out`` in open_clip's local-dir form, fp16.

    ``architecture`` is ``tiny`` or an open_clip name, ``data`` is ``world`` or a data set with captions
    (``closeup.data.registry.open_reader`` says which). The log and the state to resume from are kept in
    ``out`` with ``-run`` added to its name. Returns the folder and the last figures of the log.

    Raises:
        InputError: unknown names, or an unusable configuration.
        DataError: nothing to resume from, or records without captions.
    """
    out = Path(out)
    check_output(out)
    config = config or tiny_config()
    torch.manual_seed(config.seed)
    clip = load(f"random:{architecture}@{config.seed}", precision="fp32")
    recipe = Pretrain(clip, _source(data, clip, config))
    finished = train(recipe, config, run_folder(out), resume=resume)
    figures = finished.figures or last_logged(out)
    if finished.step == config.steps and PartialState().is_main_process:
        save_local_dir(clip, out, _card(out.name, architecture, data, config, figures), dtype="fp16")
    return out, figures


def _source(data: str, clip: Clip, config: TrainConfig) -> Captioned:
    if data == WORLD:
        ramp = int(RAMP * config.steps * config.batch_size)
        return WorldStream(seed=config.seed, batch=config.batch_size, side=max(clip.image_size), ramp=ramp)
    return ReaderStream(open_reader(data, "train"), seed=config.seed)


def _card(name: str, architecture: str, data: str, config: TrainConfig, figures: Mapping[str, float]) -> dict[str, Any]:
    return {
        "name": name,
        "recipe": Pretrain.name,
        "architecture": architecture,
        "data": data,
        "config": asdict(config),
        "figures": dict(figures),
        **surroundings(),
    }
