"""The optimisers of a training: AdamW, Muon for hidden matrices with AdamW for the rest, or SGD with momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from closeup.recipes.config import TrainConfig
from closeup.recipes.recipe import Recipe


def make_optimizers(
    recipe: Recipe, trained: Mapping[str, nn.Parameter], config: TrainConfig
) -> list[torch.optim.Optimizer]:
    """Return the optimisers that together hold every trained parameter once, with decay where the recipe wants it.

    ``muon`` orthogonalises the momentum of hidden matrices (Jordan et al. 2024; torch's own), scaled so that
    the same rate suits both. In trials with a rising difficulty it held on to shapes where AdamW lost them
    again (``docs/log.md``).
    """
    muon = config.optimizer == "muon"
    matrices = {name for name, p in trained.items() if muon and p.ndim == 2 and recipe.decays(name, p)}
    groups = _groups(recipe, {name: p for name, p in trained.items() if name not in matrices}, config)
    if config.optimizer == "sgd":
        return [torch.optim.SGD(groups, lr=config.rate, momentum=config.betas[0])]
    optimizers: list[torch.optim.Optimizer] = []
    if groups:
        optimizers.append(torch.optim.AdamW(groups, lr=config.rate, betas=config.betas, eps=config.epsilon))
    if matrices:
        hidden = _groups(recipe, {name: p for name, p in trained.items() if name in matrices}, config)
        optimizers.append(torch.optim.Muon(hidden, lr=config.rate, adjust_lr_fn="match_rms_adamw"))
    return optimizers


def _groups(recipe: Recipe, named: Mapping[str, nn.Parameter], config: TrainConfig) -> list[dict[str, Any]]:
    """Return the parameters in groups of one decay and one pace; those that decay first, at the full pace first."""
    kinds: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in named.items():
        kinds.setdefault((recipe.decays(name, parameter), recipe.pace(name)), []).append(parameter)
    return [
        {"params": kinds[decays, pace], "weight_decay": config.weight_decay if decays else 0.0, "pace": pace}
        for decays, pace in sorted(kinds, reverse=True)
    ]
