"""The one training loop: any recipe, one device or many, resumable, with progress and a log."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from closeup.errors import ConfigError
from closeup.recipes.optimizers import Kind, make_optimizers
from closeup.recipes.order import ShardedBatches, loader
from closeup.recipes.recipe import Recipe
from closeup.recipes.schedule import warmup_cosine
from closeup.recipes.state import SavedState, load_state, save_state


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How long and how fast to train; what to train is the recipe's affair.

    ``batch_size`` counts pictures of one optimiser step over all processes. Rates and decay follow AdamW
    with a linear warm-up and a cosine to ``final_rate`` times ``rate``.
    """

    steps: int
    batch_size: int
    rate: float
    optimizer: Kind = "adamw"
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = 1e-6
    warmup: int = 0
    final_rate: float = 0.0
    clip_norm: float | None = None
    accumulate: int = 1
    precision: str = "auto"
    workers: int = 1
    seed: int = 0
    log_every: int = 20
    evaluate_every: int = 500
    save_every: int = 500

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "log_every", "evaluate_every", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, but got {getattr(self, name)}.")
        if self.rate <= 0:
            raise ConfigError(f"`rate` must be positive, but got {self.rate}.")
        if self.batch_size % self.accumulate:
            raise ConfigError(f"`accumulate` ({self.accumulate}) must divide `batch_size` ({self.batch_size}).")


@dataclass(slots=True)
class Progressed:
    """What a finished training left: the number of steps and the last logged figures."""

    step: int
    figures: dict[str, float] = field(default_factory=dict)


def train(
    recipe: Recipe, config: TrainConfig, folder: Path, *, resume: bool = False, until: int | None = None
) -> Progressed:
    """Train a recipe's module in place, logging to ``folder/log.jsonl`` and saving its state there.

    ``until`` stops early, as a kill would, without changing the schedule. Ctrl-C saves before it leaves.

    Raises:
        ConfigError: the batch does not divide among the processes.
        DataError: ``resume`` without a saved state.
        CloseupError: the folder cannot be written; the last good checkpoint stays.
    """
    accelerator = _accelerator(config)
    if config.batch_size % (accelerator.num_processes * config.accumulate):
        raise ConfigError(
            f"`batch_size` ({config.batch_size}) must be a multiple of processes x `accumulate` "
            f"({accelerator.num_processes} x {config.accumulate})."
        )
    trained = _freeze_all_but(recipe)
    optimizers = make_optimizers(
        recipe,
        trained,
        config.optimizer,
        rate=config.rate,
        weight_decay=config.weight_decay,
        betas=config.betas,
        epsilon=config.epsilon,
    )
    start = load_state(folder, recipe.module, optimizers).step if resume else 0
    module, *optimizers = accelerator.prepare(recipe.module, *optimizers)
    run = _Run(recipe, module, optimizers, accelerator, config, folder)
    return run.go(start, min(until or config.steps, config.steps))


class _Run:
    """One pass through the loop, with everything that it needs at hand."""

    def __init__(
        self,
        recipe: Recipe,
        module: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        accelerator: Accelerator,
        config: TrainConfig,
        folder: Path,
    ) -> None:
        self.recipe, self.module, self.optimizers = recipe, module, optimizers
        self.accelerator, self.config, self.folder = accelerator, config, folder
        self.log = _Log(folder / "log.jsonl") if accelerator.is_main_process else None

    def go(self, start: int, stop: int) -> Progressed:
        """Run the steps from ``start`` to ``stop``."""
        config, accelerator = self.config, self.accelerator
        batches = ShardedBatches(
            start,
            stop,
            config.batch_size,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
            parts=config.accumulate,
        )
        feed = iter(loader(self.recipe, batches, config.workers, pin=accelerator.device.type == "cuda"))
        done, figures = start, dict[str, float]()
        clock, counted = time.perf_counter(), start
        with _progress(accelerator.is_main_process) as bar:
            task = bar.add_task(self.recipe.name, total=config.steps, completed=start, note="")
            try:
                for step in range(start, stop):
                    parts = self._step(step, lambda: next(feed))
                    done = step + 1
                    if done % config.log_every == 0 or done == stop:
                        seconds = time.perf_counter() - clock
                        rate = (done - counted) * config.batch_size / seconds
                        figures = self._figures(parts) | {"rate": self._rate(step), "images_per_second": rate}
                        if done % config.evaluate_every == 0 or done == config.steps:
                            figures |= self._evaluate()
                        self._write({"step": done, **figures})
                        clock, counted = time.perf_counter(), done
                        bar.update(task, note=f"loss {figures['loss']:.4f}  {rate:.0f} images/s")
                    bar.update(task, completed=done)
                    if done % config.save_every == 0 and done != stop:
                        self._save(done)
            finally:
                self._save(done)
        return Progressed(done, figures)

    def _step(self, step: int, fetch: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        torch.manual_seed(hash((self.config.seed, step)) % 2**63)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._rate(step)
        parts: Mapping[str, Tensor] = {}
        for part in range(self.config.accumulate):
            batch = {name: value.to(self.accelerator.device, non_blocking=True) for name, value in fetch().items()}
            last = part == self.config.accumulate - 1
            with nullsync(self.accelerator, self.module, last):
                parts = self.module(batch)
                self.accelerator.backward(parts["loss"] / self.config.accumulate)
        if self.config.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.module.parameters(), self.config.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.recipe.after_step()
        return parts

    def _rate(self, step: int) -> float:
        config = self.config
        return config.rate * warmup_cosine(step, steps=config.steps, warmup=config.warmup, final=config.final_rate)

    def _figures(self, parts: Mapping[str, Tensor]) -> dict[str, float]:
        names = sorted(parts)
        values = torch.stack([parts[name].detach().float() for name in names])
        mean = self.accelerator.reduce(values, reduction="mean")
        return dict(zip(names, mean.tolist(), strict=True))

    def _evaluate(self) -> dict[str, float]:
        self.module.eval()
        with torch.inference_mode():
            figures = self.recipe.evaluate()
        self.module.train()
        return figures

    def _save(self, done: int) -> None:
        if self.accelerator.is_main_process:
            config = asdict(self.config)
            save_state(self.folder, self.recipe.module, self.optimizers, SavedState(done, config))
        self.accelerator.wait_for_everyone()

    def _write(self, line: dict[str, Any]) -> None:
        if self.log is not None:
            self.log.write(line)


class _Log:
    """Appends one JSON object a line."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path

    def write(self, line: dict[str, Any]) -> None:
        rounded = {name: round(value, 6) if isinstance(value, float) else value for name, value in line.items()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rounded) + "\n")


def nullsync(accelerator: Accelerator, module: nn.Module, last: bool) -> Any:  # noqa: ANN401
    """Return a context in which gradients are exchanged only for the last part of an accumulated batch."""
    return torch.enable_grad() if last else accelerator.no_sync(module)


def _accelerator(config: TrainConfig) -> Accelerator:
    precision = config.precision
    if precision == "auto":
        fast = torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported()
        precision = "bf16" if fast else "no"
    # Accelerate keeps its settings for the whole process; a second training may want another precision.
    AcceleratorState._reset_state()
    return Accelerator(mixed_precision={"fp32": "no"}.get(precision, precision))


def _freeze_all_but(recipe: Recipe) -> dict[str, nn.Parameter]:
    trained = dict(recipe.trainable())
    moving = {id(parameter) for parameter in trained.values()}
    for parameter in recipe.module.parameters():
        parameter.requires_grad_(id(parameter) in moving)
    return trained


def _progress(visible: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        disable=not visible,
        transient=False,
        refresh_per_second=2,
    )
