"""The one training loop: any recipe, one device or many, resumable, with progress and a log."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from closeup.errors import CloseupError, ConfigError, InputError
from closeup.models.precision import bf16_is_fast
from closeup.recipes.config import TrainConfig
from closeup.recipes.interrupt import finishing_the_step
from closeup.recipes.log import LOG, TrainingLog
from closeup.recipes.optimizers import make_optimizers
from closeup.recipes.order import ShardedBatches, loader
from closeup.recipes.recipe import Batch, Recipe
from closeup.recipes.schedule import warmup_cosine
from closeup.recipes.state import SavedState, has_state, load_state, save_state


@dataclass(slots=True)
class Progressed:
    """What a training left: the number of steps done and the last figures of its log."""

    step: int
    figures: dict[str, float] = field(default_factory=dict)


def train(
    recipe: Recipe, config: TrainConfig, folder: Path, *, resume: bool = False, until: int | None = None
) -> Progressed:
    """Train a recipe's module in place, logging to ``folder/log.jsonl`` and saving its state there.

    ``until`` stops early, as a kill would, without changing the schedule. Ctrl-C ends the step that is
    under way, saves, and is then passed on.

    Raises:
        ConfigError: the batch does not divide among the processes, or a resumed training had other settings.
        InputError: the folder holds another training, and ``resume`` was not asked for.
        DataError: ``resume`` without a saved state.
        CloseupError: the folder cannot be written, or the loss is not finite; the last good checkpoint stays.
    """
    if not resume and has_state(folder):
        raise InputError(f"{str(folder)!r} holds a training already. Resume it, or choose another folder.")
    accelerator = _accelerator(config)
    shares = accelerator.num_processes * config.accumulate
    if config.batch_size % shares:
        raise ConfigError(
            f"`batch_size` ({config.batch_size}) must be a multiple of processes x `accumulate` "
            f"({accelerator.num_processes} x {config.accumulate})."
        )
    trained = _freeze_all_but(recipe)
    optimizers = make_optimizers(recipe, trained, config)
    start = _restore(recipe, config, folder, optimizers) if resume else 0
    module, *optimizers = accelerator.prepare(recipe.module, *optimizers)
    return _Run(recipe, module, optimizers, accelerator, config, folder).go(
        start, min(until or config.steps, config.steps)
    )


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

    def go(self, start: int, stop: int) -> Progressed:
        """Run the steps from ``start`` to ``stop``."""
        config, main = self.config, self.accelerator.is_main_process
        log = TrainingLog(self.folder / LOG, start) if main else None
        feed = self._feed(start, stop)
        figures: dict[str, float] = {}
        done = start
        clock, counted = time.perf_counter(), start
        with finishing_the_step() as interrupted, _progress(main) as bar:
            task = bar.add_task(self.recipe.name, total=config.steps, completed=start, note="")
            while done < stop and not interrupted():
                parts = self._step(done, feed)
                done += 1
                last = done == stop
                evaluating = done % config.evaluate_every == 0 or done == config.steps
                if last or evaluating or done % config.log_every == 0:
                    speed = (done - counted) * config.batch_size / (time.perf_counter() - clock)
                    figures = self._figures(parts) | {"rate": self._rate(done - 1), "images_per_second": speed}
                    figures |= self._evaluate() if evaluating else {}
                    if log is not None:
                        log.write({"step": done, **figures})
                    clock, counted = time.perf_counter(), done
                    bar.update(task, note=f"loss {figures['loss']:.4f}  {speed:.0f} images/s")
                bar.update(task, completed=done)
                if last or interrupted() or done % config.save_every == 0:
                    self._save(done)
        return Progressed(done, figures)

    def _feed(self, start: int, stop: int) -> Iterator[Batch]:
        accelerator, config = self.accelerator, self.config
        batches = ShardedBatches(
            start,
            stop,
            config.batch_size,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
            parts=config.accumulate,
        )
        return iter(loader(self.recipe, batches, config.workers, pin=accelerator.device.type == "cuda"))

    def _step(self, step: int, feed: Iterator[Batch]) -> Mapping[str, Tensor]:
        # Whatever is random in a step depends on its number alone, so that a resumed run draws the same.
        torch.manual_seed(self.config.seed * 1_000_003 + step)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._rate(step)
        parts: Mapping[str, Tensor] = {}
        for part in range(self.config.accumulate):
            batch = {name: value.to(self.accelerator.device, non_blocking=True) for name, value in next(feed).items()}
            with self._exchange(last=part == self.config.accumulate - 1):
                parts = self.module(batch)
                self.accelerator.backward(parts["loss"] / self.config.accumulate)
        if self.config.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.module.parameters(), self.config.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.recipe.after_step()
        return parts

    def _exchange(self, *, last: bool) -> AbstractContextManager[Any]:
        """Return a context in which gradients go to other processes only for the last part of a batch."""
        return torch.enable_grad() if last else self.accelerator.no_sync(self.module)

    def _rate(self, step: int) -> float:
        config = self.config
        return config.rate * warmup_cosine(step, steps=config.steps, warmup=config.warmup, final=config.final_rate)

    def _figures(self, parts: Mapping[str, Tensor]) -> dict[str, float]:
        names = sorted(parts)
        values = torch.stack([parts[name].detach().float() for name in names])
        mean: Tensor = self.accelerator.reduce(values, reduction="mean")
        figures = dict(zip(names, mean.tolist(), strict=True))
        if not math.isfinite(figures["loss"]):
            raise CloseupError(
                f"The loss of recipe {self.recipe.name!r} is {figures['loss']}. "
                "Lower the rate, or train in fp32; the last good checkpoint is untouched."
            )
        return figures

    def _evaluate(self) -> dict[str, float]:
        self.module.eval()
        with torch.no_grad():
            figures = self.recipe.evaluate()
        self.module.train()
        return figures

    def _save(self, done: int) -> None:
        if self.accelerator.is_main_process:
            save_state(self.folder, self.recipe.module, self.optimizers, SavedState(done, asdict(self.config)))
        self.accelerator.wait_for_everyone()


def _accelerator(config: TrainConfig) -> Accelerator:
    precision = {"fp32": "no"}.get(config.precision, config.precision)
    if precision == "auto":
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        precision = "bf16" if bf16_is_fast(device) else "no"
    # Accelerate keeps its settings for the whole process; a second training may want another precision.
    AcceleratorState._reset_state()
    # Without being told, Accelerate takes several processes on CPUs for several lone ones.
    return Accelerator(mixed_precision=precision, cpu=not torch.accelerator.is_available())


def _freeze_all_but(recipe: Recipe) -> dict[str, nn.Parameter]:
    trained = dict(recipe.trainable())
    moving = {id(parameter) for parameter in trained.values()}
    for parameter in recipe.module.parameters():
        parameter.requires_grad_(id(parameter) in moving)
    recipe.module.train()
    return trained


def _restore(recipe: Recipe, config: TrainConfig, folder: Path, optimizers: list[torch.optim.Optimizer]) -> int:
    saved = load_state(folder, recipe.module, optimizers)
    now = json.loads(json.dumps(asdict(config)))
    changed = [name for name in TrainConfig.SCHEDULE if saved.config.get(name) != now[name]]
    if changed:
        said = ", ".join(f"{name} {saved.config.get(name)} and not {now[name]}" for name in changed)
        raise ConfigError(f"The training in {str(folder)!r} was begun with {said}. Resume it with the same settings.")
    return saved.step


def _progress(visible: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not visible,
        refresh_per_second=2,
    )
