"""Weights of a whole timm model, copied into its stages alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import timm
from torch import Tensor, nn

from closeup.errors import ModelError
from closeup.models.checkpoint import mismatches, read_state_dict
from closeup.models.load import fetching

_COMPUTED = ("relative_position_index", "relative_coords_table", "attn_mask")
"""Ends of the names of what older files hold and models now compute."""


FETCHED = "timm"
"""In the place of a file of weights: timm's own."""


def give_weights(stages: nn.Module, name: str, weights: str | Path) -> None:
    """Copy ImageNet's weights into the stages of a model: those of a file under timm's names, or "timm" for its own.

    Raises:
        ModelError: they cannot be had, or are of another model.
    """
    if str(weights) == FETCHED:
        fill(stages, name, fetched_weights(name), f"timm's {name!r}")
    else:
        fill(stages, name, weights_in(Path(weights)), repr(str(weights)))


def fetched_weights(name: str) -> dict[str, Tensor]:
    """Return timm's own weights of a model; ModelError where they cannot be fetched."""
    with fetching(name):
        weights: dict[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
    return weights


def weights_in(path: Path) -> dict[str, Tensor]:
    """Return the weights in a file, without what models compute; ModelError where it cannot be read."""
    return {key: tensor for key, tensor in read_state_dict(path).items() if not key.endswith(_COMPUTED)}


def fill(stages: nn.Module, name: str, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy the whole model's weights into its stages; what comes after them (norm, classifier) is left out.

    timm names the parts of a model by dots, and by underlines where it takes the model apart.

    Raises:
        ModelError: a key is missing, is of another shape, or belongs to no part of the model; nothing is copied then.
    """
    whole = {_flat(key): key for key in timm.create_model(name).state_dict()}
    own = {key: whole[_flat(key)] for key in stages.state_dict()}
    wanted = {own[key]: tensor for key, tensor in stages.state_dict().items()}
    beyond = set(whole.values()) - set(wanted)
    counters = {key: tensor for key, tensor in wanted.items() if key.endswith("num_batches_tracked")}
    found = counters | {key: tensor for key, tensor in weights.items() if key not in beyond}
    problems = mismatches(wanted, found)
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise ModelError(
            f"The weights in {source} are not of timm's {name!r}: {'; '.join(problems[:4])}{more}. "
            "Name the model that they were trained with."
        )
    stages.load_state_dict({key: found[label] for key, label in own.items()})


def _flat(key: str) -> str:
    return key.removeprefix("model.").replace(".", "_")
