"""Any of timm's backbones in the place of CLIP's image tower, with an attention pool that starts from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip.modified_resnet import AttentionPool2d
from timm.layers import Format
from torch import Tensor, nn

from closeup._types import Images
from closeup.errors import InputError, ModelError, suggest
from closeup.heads.timm_weights import fetched_weights, fill, weights_in
from closeup.models.attention_pool import pool_every_query
from closeup.models.position_policies import position_policy
from closeup.models.reading import Reading

STRIDES = (4.0, 8.0, 16.0, 32.0)
CELL = 32
"""Side in pixels of a cell of the last map."""

_FITTING = "Choose a backbone of stages, as 'resnet50', 'swin_tiny_patch4_window7_224' or 'convnext_tiny'."


class TimmBackbone(nn.Module):
    """The last four stages of a timm model, and a random attention pool from the last one into the joint space.

    ``name`` is timm's (``resnet50``, ``swin_tiny_patch4_window7_224``, ``convnext_tiny``), ``dim`` the dimensions of
    the text tower's joint space, ``size`` the side in pixels of the training images: the pool learns one position for
    each of their cells, which other sizes resize. With ``joint=False`` there is no pool and no joint space: a plain
    backbone. The weights are random, or ImageNet's: ``pretrained`` fetches timm's own, ``weights`` is a file under
    timm's names.

    ``widths`` are the channels of the four maps, finest first, ``strides`` their cells' sides in pixels,
    ``score_level`` the map with the dense map's grid; ``mean`` and ``std`` are those that images are normalised by.

    Raises:
        ModelError: timm has no such model, it has no four stages at strides 4 to 32, it takes one size of images
            alone, or the weights cannot be had or are of another model.
        InputError: both ``pretrained`` and ``weights``, or a ``size`` or ``dim`` below 1.

    Source: DenseCLIP (arXiv 2112.01518), Section 4.3, "any backbone"; its code is not published, so the pool starts as
    CLIP's own do.
    """

    score_level = 3

    def __init__(
        self,
        name: str,
        dim: int,
        *,
        size: int,
        joint: bool = True,
        pretrained: bool = False,
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        _check(name, dim, size, pretrained and weights is not None)
        self.stages, maps = _stages(name, size)
        if pretrained:
            fill(self.stages, name, fetched_weights(name), f"timm's {name!r}")
        elif weights is not None:
            fill(self.stages, name, weights_in(Path(weights)), repr(str(weights)))
        self.widths = [level.shape[1] for level in maps]
        self.strides = list(STRIDES)
        own: Any = self.stages.pretrained_cfg
        self.mean: tuple[float, ...] = tuple(own["mean"])
        self.std: tuple[float, ...] = tuple(own["std"])
        self.pool = random_pool(self.widths[-1], dim, -(-size // CELL)) if joint else None

    def forward(self, images: Images) -> Reading:
        """Return the four maps, the pool's embedding and its dense map; sides are padded to whole cells with zeros."""
        height, width = images.shape[-2:]
        levels = _maps(self.stages, F.pad(images, (0, -width % CELL, 0, -height % CELL)))
        if self.pool is None:
            return Reading(levels, None, None)
        last = levels[-1]
        positions = position_policy("resize")(self.pool.positional_embedding, (last.shape[2], last.shape[3]))
        return Reading(levels, *pool_every_query(self.pool, last, positions))


def random_pool(width: int, dim: int, side: int) -> AttentionPool2d:
    """Return an attention pool over ``side`` by ``side`` cells that starts as open_clip's ResNets do.

    Its heads have 64 channels each, or the fewest above that of which a whole number makes the width.
    """
    heads = next(count for count in range(max(width // 64, 1), 0, -1) if width % count == 0)
    pool = AttentionPool2d(side, width, heads, dim)
    for projection in (pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj):
        nn.init.normal_(projection.weight, std=width**-0.5)
    return pool


def _check(name: str, dim: int, size: int, twice: bool) -> None:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise ModelError(f"timm has no model {name!r}. {suggest(architecture, timm.list_models())}")
    if tag and name not in (tagged := timm.list_pretrained(f"{architecture}.*")):
        raise ModelError(f"timm has no weights {tag!r} of the model {architecture!r}. {suggest(name, tagged)}")
    if min(dim, size) < 1:
        raise InputError(f"A backbone needs a joint space and images of 1 or more; received dim={dim}, size={size}.")
    if twice:
        raise InputError(f"Both pretrained and weights were given for the backbone {name!r}. Give one of them.")


def _stages(name: str, size: int) -> tuple[nn.Module, list[Tensor]]:
    """Return the last four stages, and their maps of a small image; ModelError where they are not what is needed."""
    rows, cols = 3, 5
    try:
        stages = _made(name, size)
        with torch.no_grad():
            maps = _maps(stages.eval(), torch.zeros(1, 3, rows * CELL, cols * CELL))
    except Exception as error:  # timm has no one class for it
        reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        raise ModelError(
            f"The backbone {name!r} gives no four maps of an image of any size: {reason}. {_FITTING}"
        ) from error
    found = [(CELL * rows / level.shape[2], CELL * cols / level.shape[3]) for level in maps]
    if found != [(stride, stride) for stride in STRIDES]:
        told = ", ".join(f"{stride:g}" for stride, _ in found)
        raise ModelError(f"The backbone {name!r} has maps at strides {told}, and 4, 8, 16, 32 are needed. {_FITTING}")
    return stages.train(), maps


def _made(name: str, size: int) -> nn.Module:
    last_four: dict[str, Any] = {"features_only": True, "out_indices": (-4, -3, -2, -1)}
    # A Swin fits its windows and their shifts to one size. Below its own the windows would shrink, and with them the
    # tables of relative positions; what is smaller is padded to whole windows.
    own = timm.get_pretrained_cfg(name).input_size[-1]
    try:
        made: nn.Module = timm.create_model(
            name, img_size=max(-(-size // CELL) * CELL, own), strict_img_size=False, **last_four
        )
    except TypeError:  # every other family: no such argument
        made = timm.create_model(name, **last_four)
    return made


def _maps(stages: nn.Module, images: Images) -> list[Float[Tensor, "batch _ _ _"]]:
    maps: list[Tensor] = stages(images)
    if getattr(stages, "output_fmt", Format.NCHW) == Format.NHWC:
        return [level.movedim(-1, 1) for level in maps]
    return maps
