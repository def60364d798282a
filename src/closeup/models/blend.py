"""Weight ensembling: a point on the straight line from a model to what it was adapted to."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from closeup.errors import InputError, ModelError
from closeup.models.checkpoint import mismatches
from closeup.models.clip import Clip
from closeup.models.mask_prompt import stored_prompts


@torch.no_grad()
def blend(base: Clip, adapted: Clip, alpha: float) -> Clip:
    """Return a new model with the weights ``alpha * adapted + (1 - alpha) * base``, over the whole state.

    ``alpha`` 0 is the base and 1 the adapted model, exactly. Mask prompts that only the adapted model has are its own.
    Buffers of whole numbers are the adapted model's.
    Both models stay as they are, and the result is on the device of the adapted one.

    Raises:
        InputError: alpha is below 0 or above 1: nothing was learned outside of that line.
        ModelError: the two are not of one architecture.

    Source: WiSE-FT (arXiv 2109.01903), as in CLIPSelf's ``train.py``: once, after training, and no moving average.
    CLIPSelf's released weights are such blends, alpha 0.7 for ViT-B/16 and 0.95 for ViT-L/14; an alpha of 2, with
    which its code turns this off, is an error here.
    """
    check_alpha(alpha)
    start, end = base.model.state_dict(), adapted.model.state_dict()
    prompts = stored_prompts(end)
    _check_same_architecture(base, adapted, mismatches({**prompts, **start}, end))
    model = deepcopy(adapted.model)
    model.load_state_dict({name: _between(start.get(name, value), value, alpha) for name, value in end.items()})
    return Clip(
        model.eval(),
        adapted.config,
        name=f"{alpha:g} of {adapted.name} on {base.name}",
        tokenizer=lambda: adapted.tokenizer,
        precision=adapted.precision,
    )


def blend_card(base: Clip, adapted: Clip, alpha: float) -> dict[str, Any]:
    """Return what a card says about a blend: alpha, and both models with the hash of their weights."""
    ends = {"base": base, "adapted": adapted}
    return {"alpha": alpha} | {
        role: {"name": clip.name, "fingerprint": clip.fingerprint} for role, clip in ends.items()
    }


def check_alpha(alpha: float) -> None:
    """Raise InputError unless alpha lies between 0, the base, and 1, the adapted model."""
    if not 0 <= alpha <= 1:
        raise InputError(
            f"alpha {alpha:g} is outside 0 to 1. Give a share of the adapted model: 0 is the base, 1 the adapted model."
        )


def _between(start: Tensor, end: Tensor, alpha: float) -> Tensor:
    if not end.is_floating_point():
        return end
    mixed = alpha * end.float() + (1 - alpha) * start.to(end.device).float()
    return mixed.to(end.dtype)


def _check_same_architecture(base: Clip, adapted: Clip, problems: list[str]) -> None:
    if base.tower.family != adapted.tower.family:
        problems = [f"its tower is {adapted.tower.family} and not {base.tower.family}", *problems]
    if not problems and _activation(base) != _activation(adapted):
        problems = ["only one of them computes with QuickGELU"]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ModelError(
            f"{adapted.name!r} was not adapted from {base.name!r}: {'; '.join(problems[:3])}{more}. "
            "Blend two models of one architecture."
        )


def _activation(clip: Clip) -> bool:
    return bool(clip.config["model_cfg"].get("quick_gelu", False))
