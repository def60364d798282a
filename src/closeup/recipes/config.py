"""How long and how fast to train."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from closeup.errors import ConfigError, suggest
from closeup.recipes.schedule import DECAYS
from closeup.recipes.trackers import check_trackers

OPTIMIZERS = ("adamw", "muon", "sgd")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Steps, batch, rates and rhythm of a training; what is trained is the recipe's affair.

    ``batch_size`` counts pictures of one optimiser step over all processes. The rate rises over ``warmup``
    steps and falls to ``final_rate`` times ``rate``, on the curve that ``decay`` names: a cosine, or a power of what is
    left (``polynomial``). ``betas[0]`` is the momentum of ``sgd``.
    ``precision`` ``auto`` is bf16 autocast where the machine is faster at it. ``accumulate`` is the number of parts
    that a batch is computed in, one after the other, to save memory; the step is the same. ``trackers`` are told every
    line of the log: ``tensorboard`` or any other that Accelerate knows.

    Raises:
        ConfigError: a value outside its range, or a tracker that is not installed.
    """

    steps: int
    batch_size: int
    rate: float
    optimizer: str = "adamw"
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = 1e-6
    warmup: int = 0
    final_rate: float = 0.0
    decay: str = "cosine"
    clip_norm: float | None = None
    accumulate: int = 1
    precision: str = "auto"
    workers: int = 1
    seed: int = 0
    log_every: int = 20
    evaluate_every: int = 500
    save_every: int = 500
    trackers: tuple[str, ...] = ()

    SCHEDULE: ClassVar[tuple[str, ...]] = (
        "steps",
        "batch_size",
        "rate",
        "optimizer",
        "weight_decay",
        "warmup",
        "final_rate",
        "decay",
        "accumulate",
        "seed",
    )
    """The settings that a resumed training must share with its beginning, for its result to be the same."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "log_every", "evaluate_every", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, but got {getattr(self, name)}.")
        for name in ("weight_decay", "warmup", "workers", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"`{name}` must not be negative, but got {getattr(self, name)}.")
        if not self.rate > 0:
            raise ConfigError(f"`rate` must be positive, but got {self.rate}.")
        if self.batch_size % self.accumulate:
            raise ConfigError(f"`accumulate` ({self.accumulate}) must divide `batch_size` ({self.batch_size}).")
        for name, choices in (("optimizer", OPTIMIZERS), ("precision", PRECISIONS), ("decay", DECAYS)):
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(f"Unknown {name} {value!r}. {suggest(str(value), choices)}")
        check_trackers(self.trackers)


def fitted(preset: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """Return a preset's settings with some of them changed, fitted to how long it is and to the machine.

    Unless they are given, the warm-up is at most a tenth of the steps (a thousand, as papers have, are more than
    some albums need in all) and the workers are no more than the cores.
    """
    steps = replace(preset, **changes).steps
    fitting = {"warmup": min(preset.warmup, steps // 10), "workers": min(preset.workers, _cores())}
    return replace(preset, **(fitting | dict(changes)))


def _cores() -> int:
    """Return how many cores this process may use, which can be fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
