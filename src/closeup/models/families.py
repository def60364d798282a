"""The list of tower families, and which of them an open_clip model belongs to."""

from __future__ import annotations

from torch import nn

from closeup.errors import ModelError
from closeup.models.eva import EvaTower
from closeup.models.resnet import ResNetTower
from closeup.models.timm_backbone import TimmBackboneTower
from closeup.models.timm_conv import ConvTower
from closeup.models.timm_vit import TimmVitTower
from closeup.models.tower import ImageTower
from closeup.models.vit import VitTower

FAMILIES: tuple[type[ImageTower], ...] = (VitTower, EvaTower, ResNetTower, TimmVitTower, ConvTower, TimmBackboneTower)
"""In the order in which they are asked."""


def build_tower(visual: nn.Module, dim: int) -> ImageTower:
    """Wrap open_clip's image module in the tower of its family; ModelError where there is none."""
    for family in FAMILIES:
        if family.accepts(visual):
            return family.from_visual(visual, dim)
    trunk = getattr(visual, "trunk", visual)
    known = ", ".join(family.family for family in FAMILIES)
    raise ModelError(
        f"No dense map is known for the image tower {type(trunk).__name__!r}. The families are {known}: choose one."
    )
