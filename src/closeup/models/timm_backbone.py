"""Any of timm's backbones in the place of CLIP's image tower, with an attention pool that starts from nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
import torch
from jaxtyping import Float
from open_clip.modified_resnet import AttentionPool2d
from timm.layers import Format
from torch import Tensor, nn

from closeup._types import Images
from closeup.errors import InputError, ModelError, suggest
from closeup.models.pooled_stages import PooledStages
from closeup.models.token_tower import check_block

STRIDES = (4.0, 8.0, 16.0, 32.0)
CELL = 32
"""Side in pixels of a cell of the last map."""

_FITTING = "Choose a backbone of stages, as 'resnet50', 'swin_tiny_patch4_window7_224' or 'convnext_tiny'."


class TimmBackbone(nn.Module):
    """The last four stages of a timm model, and a random attention pool from the last one into the joint space.

    ``name`` is timm's (``resnet50``, ``swin_tiny_patch4_window7_224``, ``convnext_tiny``), ``dim`` the dimensions of
    the text tower's joint space, ``size`` the side in pixels of the training images: the pool learns one position for
    each of their cells, which other sizes resize. The weights are random (``timm_weights.give_weights``). ``mean`` and
    ``std`` are those that images are normalised by.

    Raises:
        ModelError: timm has no such model, it has no four stages at strides 4 to 32, it takes one size of images
            alone.
        InputError: a ``size`` or ``dim`` below 1.

    Source: DenseCLIP (arXiv 2112.01518), Section 4.3, "any backbone"; its code is not published, so the pool starts as
    CLIP's own do.
    """

    def __init__(self, name: str, dim: int, *, size: int) -> None:
        super().__init__()
        _check(name, dim, size)
        self.stages, maps = _stages(name, size)
        self.image_size = -(-size // CELL) * CELL
        own: Any = self.stages.pretrained_cfg
        self.mean: tuple[float, ...] = tuple(own["mean"])
        self.std: tuple[float, ...] = tuple(own["std"])
        self.attnpool = random_pool(maps[-1].shape[1], dim, self.image_size // CELL)

    def forward(self, images: Images) -> list[Float[Tensor, "batch _ _ _"]]:
        """Return the maps of the four stages, finest first, of images of whole cells of 32 pixels."""
        return _maps(self.stages, images)


class TimmBackboneTower(PooledStages):
    """A backbone of timm's in the form of a tower: what an attention pool from nothing makes of its last stage."""

    family = "timm backbone"
    visual: TimmBackbone

    @classmethod
    def accepts(cls, visual: nn.Module) -> bool:
        """Tell whether ``visual`` is such a backbone."""
        return isinstance(visual, TimmBackbone)

    @classmethod
    def from_visual(cls, visual: nn.Module, dim: int) -> TimmBackboneTower:
        """Wrap it; no weight is copied."""
        backbone: Any = visual
        return cls(backbone, dim=dim, image_size=(backbone.image_size, backbone.image_size))

    def features(self, images: Images, blocks: Sequence[int]) -> list[Float[Tensor, "batch _ _ _"]]:
        """Return the outputs of the given stages (0-based), in the order asked for; InputError for one it has not."""
        wanted = [check_block(block, self.depth) for block in blocks]
        maps = self.visual(images)
        return [maps[index] for index in wanted]

    def stem(self, images: Images) -> Float[Tensor, "batch channels rows cols"]:
        """Return the finest of the four maps: timm runs stem and stages as one."""
        finest: Tensor = self.visual(images)[0]
        return finest

    def stages(self) -> Sequence[nn.Module]:
        """Return the stages as the one module that they are in timm."""
        return [self.visual.stages]


def random_pool(width: int, dim: int, side: int) -> AttentionPool2d:
    """Return an attention pool over ``side`` by ``side`` cells that starts as open_clip's ResNets do.

    Its heads have 64 channels each, or the fewest above that of which a whole number makes the width.
    """
    heads = next(count for count in range(max(width // 64, 1), 0, -1) if width % count == 0)
    pool = AttentionPool2d(side, width, heads, dim)
    for projection in (pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj):
        nn.init.normal_(projection.weight, std=width**-0.5)
    return pool


def _check(name: str, dim: int, size: int) -> None:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise ModelError(f"timm has no model {name!r}. {suggest(architecture, timm.list_models())}")
    if tag and name not in (tagged := timm.list_pretrained(f"{architecture}.*")):
        raise ModelError(f"timm has no weights {tag!r} of the model {architecture!r}. {suggest(name, tagged)}")
    if min(dim, size) < 1:
        raise InputError(f"A backbone needs a joint space and images of 1 or more; received dim={dim}, size={size}.")


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
