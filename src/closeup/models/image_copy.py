"""A copy of a CLIP's image tower, to be asked or changed while the CLIP itself stays as it is."""

from __future__ import annotations

from copy import deepcopy

from torch import nn

from closeup.models.clip import Clip


def image_copy(clip: Clip) -> Clip:
    """Return a CLIP that has a frozen copy of the image tower, in eval mode, and no text tower."""
    holder = nn.Module()
    holder.visual = deepcopy(clip.tower.visual).eval().requires_grad_(False)
    return Clip(holder, clip.config, name=clip.name, precision=clip.precision)
