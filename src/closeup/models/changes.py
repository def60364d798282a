"""An adapted model as what it changed: the tensors that differ from a base, and the base's name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from closeup.errors import ModelError
from closeup.models.checkpoint import CARD, CHANGES, mismatches, model_folder, stored
from closeup.models.clip import Clip
from closeup.models.disk import write_tensors
from closeup.models.mask_prompt import give_stored_prompts, stored_prompts


def save_changes(
    clip: Clip,
    base: Clip,
    folder: str | Path,
    card: Mapping[str, Any] | None = None,
    *,
    dtype: Literal["fp32", "fp16"] = "fp32",
) -> Path:
    """Write the tensors in which a model differs from its base, with a card that names the base and its hash.

    A fifth to a half of the whole model where the text tower stayed as it was. ``closeup.load`` reads the folder and
    needs the base; for open_clip alone save the whole model (``save_local_dir``). It appears whole or not at all.

    Raises:
        ModelError: the two are not of one architecture.
        InputError: the folder holds something else.
    """
    folder = Path(folder)
    before, after = base.model.state_dict(), clip.model.state_dict()
    prompts = stored_prompts(after)
    problems = mismatches({**before, **prompts}, after)
    if problems:
        raise ModelError(f"{clip.name!r} was not adapted from {base.name!r}: {'; '.join(problems[:3])}.")
    changed = {
        name: tensor
        for name, tensor in after.items()
        if name not in before or not torch.equal(tensor.cpu(), before[name].cpu())
    }
    told = {"name": folder.name, **(card or {}), "base": {"name": base.name, "fingerprint": base.fingerprint}}
    with model_folder(folder) as fresh:
        write_tensors({name: stored(tensor, dtype) for name, tensor in changed.items()}, fresh / CHANGES)
        (fresh / CARD).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        (fresh / CHANGES).chmod(0o644)
    return folder


def apply_changes(base: Clip, changes: Mapping[str, Tensor], expected: str, source: str) -> None:
    """Write changed tensors over a base, in place.

    Raises:
        ModelError: the base is not the one that was changed, or a tensor does not fit it.
    """
    if base.fingerprint != expected:
        raise ModelError(
            f"{source} was made from a model {base.name!r} with the weights {expected[:12]}, but the one here has "
            f"{base.fingerprint[:12]}. Load it beside the base that it was adapted from, or adapt this one anew."
        )
    give_stored_prompts(base.tower, changes, source)
    state = base.model.state_dict()
    problems = mismatches(state, {**state, **changes})
    if problems:
        raise ModelError(f"The tensors in {source} do not fit {base.name!r}: {'; '.join(problems[:3])}.")
    base.model.load_state_dict({**state, **changes})
