"""The optimisers of a training: AdamW, or Muon for hidden matrices with AdamW for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import torch
from torch import nn

from closeup.recipes.recipe import Recipe

Kind: TypeAlias = Literal["adamw", "muon"]


def make_optimizers(
    recipe: Recipe,
    trained: Mapping[str, nn.Parameter],
    kind: Kind,
    *,
    rate: float,
    weight_decay: float,
    betas: tuple[float, float],
    epsilon: float,
) -> list[torch.optim.Optimizer]:
    """Return the optimisers that together hold every trained parameter once, with decay where the recipe wants it.

    ``muon`` orthogonalises the momentum of hidden matrices (Jordan et al. 2024; torch's own), scaled so that
    the same rate suits both. When tiny was made, supervised trials with a rising difficulty held on to shapes with
    it where AdamW lost them again.
    """
    matrices = (
        {name for name, p in trained.items() if p.ndim == 2 and recipe.decays(name, p)} if kind == "muon" else set()
    )
    rest = {name: p for name, p in trained.items() if name not in matrices}
    decayed = [p for name, p in rest.items() if recipe.decays(name, p)]
    plain = [p for name, p in rest.items() if not recipe.decays(name, p)]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=rate, betas=betas, eps=epsilon)]
    if matrices:
        hidden = [p for name, p in trained.items() if name in matrices]
        optimizers.append(torch.optim.Muon(hidden, lr=rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))
    return optimizers
