"""One optimiser step of any recipe, on one device or many, in one part or several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from closeup.models.precision import bf16_is_fast
from closeup.recipes.config import TrainConfig
from closeup.recipes.recipe import Batch, Recipe
from closeup.recipes.schedule import DECAYS


class Stepper:
    """Everything that an optimiser step needs, at hand: call it with a step's number and the feed of batches.

    The recipe's module and the optimisers are moved to the devices and wrapped here. The gradient of a step is that of
    the whole global batch, however many processes and parts share it.
    """

    def __init__(
        self, recipe: Recipe, optimizers: list[torch.optim.Optimizer], accelerator: Accelerator, config: TrainConfig
    ) -> None:
        self.recipe, self.accelerator, self.config = recipe, accelerator, config
        self.module: nn.Module
        self.module, *self.optimizers = accelerator.prepare(recipe.module, *optimizers)

    def __call__(self, step: int, feed: Iterator[Batch]) -> dict[str, Tensor]:
        """Take one step; return what the module gave, the mean over this process's parts of the batch."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rate(step) * group.get("pace", 1.0)
        count = self.config.accumulate
        parts = self._with_terms([next(feed) for _ in range(count)])
        given: dict[str, Tensor] = {}
        for index, part in enumerate(parts):
            # Whatever is random in a step depends on its number alone, so that a resumed run draws the same, and so
            # do all processes and parts.
            torch.manual_seed(self.config.seed * 1_000_003 + step)
            batch = {name: value.to(self.accelerator.device, non_blocking=True) for name, value in part.items()}
            with self._exchange(last=index == count - 1):
                values: Mapping[str, Tensor] = self.module(batch)
                self.accelerator.backward(values["loss"] / count)
            for name, value in values.items():
                given[name] = given.get(name, 0) + value.detach().float() / count
        if self.config.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.module.parameters(), self.config.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.recipe.after_step()
        return given

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        config = self.config
        factor = DECAYS[config.decay](step, steps=config.steps, warmup=config.warmup, final=config.final_rate)
        return config.rate * factor

    def _with_terms(self, parts: list[Batch]) -> list[Batch]:
        """Tell every part the mean number of terms over all parts of all processes, if parts may differ in it."""
        counts = [self.recipe.terms(part) for part in parts]
        known = [count for count in counts if count is not None]
        if not known:
            return parts
        mine = torch.tensor(float(sum(known)) / len(parts), device=self.accelerator.device)
        mean: Tensor = self.accelerator.reduce(mine, reduction="mean")
        return [{**part, "terms": mean} for part in parts]

    def _exchange(self, *, last: bool) -> AbstractContextManager[Any]:
        """Return a context in which gradients go to other processes only for the last part of a batch."""
        return torch.enable_grad() if last else self.accelerator.no_sync(self.module)


def make_accelerator(config: TrainConfig, folder: Path | None = None) -> Accelerator:
    """Return the devices that this process was started for, at the precision of a configuration.

    Its trackers keep what they write in ``folder``.
    """
    precision = {"fp32": "no"}.get(config.precision, config.precision)
    if precision == "auto":
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        precision = "bf16" if bf16_is_fast(device) else "no"
    # Accelerate keeps its settings for the whole process; a second training may want another precision.
    AcceleratorState._reset_state()
    # Without being told, Accelerate takes several processes on CPUs for several lone ones.
    return Accelerator(
        mixed_precision=precision,
        cpu=not torch.accelerator.is_available(),
        log_with=list(config.trackers) or None,
        project_dir=folder,
    )


def freeze_all_but_trainable(recipe: Recipe) -> dict[str, nn.Parameter]:
    """Let the parameters that a recipe trains have gradients and no others; return them by name."""
    trained = dict(recipe.trainable())
    moving = {id(parameter) for parameter in trained.values()}
    for parameter in recipe.module.parameters():
        parameter.requires_grad_(id(parameter) in moving)
    recipe.module.train()
    return trained
