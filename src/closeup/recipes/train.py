"""The one training loop: any recipe, one device or many, resumable, with progress and a log."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from closeup.errors import CloseupError, ConfigError, InputError
from closeup.recipes.config import TrainConfig
from closeup.recipes.interrupt import finishing_the_step
from closeup.recipes.log import LOG, TrainingLog
from closeup.recipes.optimizers import make_optimizers
from closeup.recipes.order import ShardedBatches, loader
from closeup.recipes.recipe import Batch, Recipe
from closeup.recipes.state import SavedState, has_state, load_state, save_state
from closeup.recipes.step import Stepper, freeze_all_but_trainable, make_accelerator
from closeup.recipes.trackers import tracking


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
        ConfigError: the batch does not divide among processes and parts, or a resumed training had other settings.
        InputError: the folder holds another training, and ``resume`` was not asked for.
        DataError: ``resume`` without a saved state.
        CloseupError: the folder cannot be written, or the loss is not finite; the last good checkpoint stays.
    """
    if not resume and has_state(folder):
        raise InputError(f"{str(folder)!r} holds a training already. Resume it, or choose another folder.")
    accelerator = make_accelerator(config, folder)
    check_shares(recipe, config, accelerator.num_processes)
    trained = freeze_all_but_trainable(recipe)
    optimizers = make_optimizers(recipe, trained, config)
    start = _restore(recipe, config, folder, optimizers, accelerator.scaler) if resume else 0
    run = _Run(Stepper(recipe, optimizers, accelerator, config), folder)
    return run.go(start, min(until or config.steps, config.steps))


class _Run:
    """One pass through the loop, with everything that it needs at hand."""

    def __init__(self, step: Stepper, folder: Path) -> None:
        self.step, self.folder = step, folder
        self.recipe, self.accelerator, self.config = step.recipe, step.accelerator, step.config

    def go(self, start: int, stop: int) -> Progressed:
        """Run the steps from ``start`` to ``stop``."""
        config, main = self.config, self.accelerator.is_main_process
        log = TrainingLog(self.folder / LOG, start) if main else None
        figures: dict[str, float] = {}
        done = start
        clock, counted = time.perf_counter(), start
        with (
            finishing_the_step() as interrupted,
            closing(self._feed(start, stop)) as feed,
            tracking(self.accelerator, f"closeup-{self.recipe.name}", asdict(config), start),
            _progress(main) as bar,
        ):
            task = bar.add_task(self.recipe.name, total=config.steps, completed=start, note="")
            while done < stop and not interrupted():
                given = self.step(done, feed)
                done += 1
                last = done == stop
                evaluating = done % config.evaluate_every == 0 or done == config.steps
                if last or evaluating or done % config.log_every == 0:
                    speed = (done - counted) * config.batch_size / (time.perf_counter() - clock)
                    figures = self._figures(given) | {"rate": self.step.rate(done - 1), "images_per_second": speed}
                    figures |= self._evaluate() if evaluating else {}
                    if log is not None:
                        log.write({"step": done, **figures})
                    self.accelerator.log(figures, step=done)
                    clock, counted = time.perf_counter(), done
                    bar.update(task, note=f"loss {figures['loss']:.4f}  {speed:.0f} images/s")
                bar.update(task, completed=done)
                if last or interrupted() or done % config.save_every == 0:
                    self._save(done)
        return Progressed(done, figures)

    def _feed(self, start: int, stop: int) -> Generator[Batch, None, None]:
        """Yield local batches; closed, it ends its workers, which must not wait for the interpreter's own end."""
        accelerator, config = self.accelerator, self.config
        batches = ShardedBatches(
            start,
            stop,
            config.batch_size,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
            parts=config.accumulate,
        )
        yield from loader(self.recipe, batches, config.workers, pin=accelerator.device.type == "cuda")

    def _figures(self, given: Mapping[str, Tensor]) -> dict[str, float]:
        names = sorted(given)
        values = torch.stack([given[name] for name in names])
        mean: Tensor = self.accelerator.reduce(values, reduction="mean")
        figures = dict(zip(names, mean.tolist(), strict=True))
        if not math.isfinite(figures["loss"]):
            raise CloseupError(
                f"The loss of recipe {self.recipe.name!r} is {figures['loss']}. "
                "Lower the rate, or train in fp32; the last good checkpoint is untouched."
            )
        return figures

    def _evaluate(self) -> dict[str, float]:
        self.step.module.eval()
        with torch.no_grad():
            figures = self.recipe.evaluate()
        self.step.module.train()
        return figures

    def _save(self, done: int) -> None:
        if self.accelerator.is_main_process:
            state = SavedState(done, asdict(self.config))
            scaler = self.accelerator.scaler
            save_state(self.folder, self.recipe.module, self.step.optimizers, state, scaler=scaler)
        self.accelerator.wait_for_everyone()


def check_shares(recipe: Recipe, config: TrainConfig, processes: int) -> None:
    """Raise ConfigError where a batch cannot be shared among processes and parts as a configuration has it."""
    if config.batch_size % (processes * config.accumulate):
        raise ConfigError(
            f"`batch_size` ({config.batch_size}) must be a multiple of processes x `accumulate` "
            f"({processes} x {config.accumulate})."
        )
    if config.accumulate > 1 and not recipe.divisible:
        raise ConfigError(
            f"`accumulate` is {config.accumulate}: what recipe {recipe.name!r} learns from a picture depends on the "
            "others of its batch, so parts are not the whole. Set it to 1, and use a smaller batch or more devices."
        )


def _restore(
    recipe: Recipe,
    config: TrainConfig,
    folder: Path,
    optimizers: list[torch.optim.Optimizer],
    scaler: torch.amp.GradScaler | None,
) -> int:
    saved = load_state(folder, recipe.module, optimizers, scaler=scaler)
    now = json.loads(json.dumps(asdict(config)))
    # A setting that came later stands at its default in a training begun before.
    begun = {setting.name: setting.default for setting in fields(config)} | saved.config
    changed = [name for name in TrainConfig.SCHEDULE if begun[name] != now[name]]
    if changed:
        said = ", ".join(f"{name} {begun[name]} and not {now[name]}" for name in changed)
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
