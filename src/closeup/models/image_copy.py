"""Copies of a CLIP, to be asked or changed while the CLIP itself stays as it is."""

from __future__ import annotations

from copy import deepcopy

from torch import nn

from closeup.models.clip import Clip


def image_copy(clip: Clip) -> Clip:
    """Return a CLIP that has a frozen copy of the image tower, in eval mode, and no text tower."""
    holder = nn.Module()
    holder.visual = deepcopy(clip.tower.visual).eval().requires_grad_(False)
    return Clip(holder, clip.config, name=clip.name, precision=clip.precision)


def whole_copy(clip: Clip) -> Clip:
    """Return a CLIP with frozen copies of both towers, in eval mode."""
    model = deepcopy(clip.model).eval().requires_grad_(False)
    return Clip(model, clip.config, name=clip.name, tokenizer=lambda: clip.tokenizer, precision=clip.precision)
