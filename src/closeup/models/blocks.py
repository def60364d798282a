"""Which parameters of an image tower learn: those of its last blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from closeup.errors import ConfigError, ModelError
from closeup.models.clip import Clip
from closeup.models.resnet import ResNetTower
from closeup.models.stage_tower import StageTower
from closeup.models.timm_tower import TimmTower
from closeup.models.tower import ImageTower
from closeup.models.vit import VitTower


def trainable_blocks(clip: Clip, count: int | None = None) -> dict[str, nn.Parameter]:
    """Return the parameters of the last ``count`` blocks (None: of all) by their name in ``clip.model``.

    Blocks are transformer blocks, or the stages of a convolutional tower. Stem, position embedding, class token,
    final norm, projection, attention pool and the text tower are never among them.

    Raises:
        ConfigError: ``count`` is below 1 or above the number of blocks. In the official code 0 trained everything,
            stem and projection included (``blocks[-0:]``); here it is an error.
        ModelError: the tower has no blocks.
    """
    blocks = blocks_of(clip.tower)
    if count is not None and not 1 <= count <= len(blocks):
        raise ConfigError(
            f"`blocks` is {count}: {clip.name!r} has {len(blocks)} blocks. Give 1 to {len(blocks)}, or None for all."
        )
    chosen = blocks if count is None else blocks[-count:]
    inside = {id(parameter) for block in chosen for parameter in block.parameters()}
    named = clip.tower.visual.named_parameters(prefix="visual")
    return {name: parameter for name, parameter in named if id(parameter) in inside}


def region_blocks(clip: Clip, count: int | None = None) -> dict[str, nn.Parameter]:
    """Return the parameters that may learn where regions are compared with words, by their name in ``clip.model``.

    Those of the last ``count`` blocks; of CLIP's ResNets the last stages (None: three, all but the first) and the
    attention pool, without any norm.

    Raises:
        ConfigError: ``count`` is below 1 or above the number of blocks.

    Source: ``microsoft/RegionCLIP`` ``modeling/backbone/clip_backbone.py`` (``FREEZE_AT`` 2, frozen batch norms).
    """
    if not isinstance(clip.tower, ResNetTower):
        return trainable_blocks(clip, count)
    visual = clip.tower.visual
    norms = {id(p) for module in visual.modules() if isinstance(module, nn.BatchNorm2d) for p in module.parameters()}
    pool = dict(visual.attnpool.named_parameters(prefix="visual.attnpool"))
    named = trainable_blocks(clip, 3 if count is None else count) | pool
    return {name: parameter for name, parameter in named.items() if id(parameter) not in norms}


def blocks_of(tower: ImageTower) -> Sequence[nn.Module]:
    """Return the blocks or stages of a tower, first to last; ModelError where it has none."""
    if isinstance(tower, StageTower):
        return list(tower.stages())
    if isinstance(tower, TimmTower):
        return list(tower.trunk.blocks)
    if isinstance(tower, VitTower):
        return list(tower.visual.transformer.resblocks)
    raise ModelError(f"A {tower.family} tower has no blocks to choose from. Train another model.")


def reached(output: Float[Tensor, ""], parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Return those of the parameters that take part in an output.

    A route may leave some of the last block out (the value route has no query and no key). Parameters that no
    gradient reaches would never move, but data-parallel training would wait for their gradients for ever.
    """
    gradients: Sequence[Tensor | None] = torch.autograd.grad(output, list(parameters.values()), allow_unused=True)
    return {
        name: parameter
        for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True)
        if gradient is not None
    }
