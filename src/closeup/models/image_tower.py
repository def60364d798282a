"""An image tower alone, made from a configuration: to be filled from a file, or to learn at another native size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP
from torch import Tensor, nn

from closeup.models.clip import Clip
from closeup.models.pos_embed import resize_position_embedding
from closeup.models.timm_backbone import TimmBackbone
from closeup.models.timm_weights import give_weights

NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 64, "heads": 1, "layers": 1}
"""The least text tower that open_clip builds; it is thrown away."""

BACKBONE = "timm_backbone"
"""The key of a vision configuration that names a backbone of timm's."""

POSITIONS = ("positional_embedding", "attnpool.positional_embedding", "trunk.pos_embed")
"""The learned position embeddings of open_clip's image towers."""


def image_tower(config: Mapping[str, Any], *, name: str, size: int | None = None, precision: str = "auto") -> Clip:
    """Return an untrained CLIP that has an image tower and no text tower.

    ``config`` is a CLIP's; ``size`` is another native size, a side in pixels, of which whole patches are taken.
    """
    told = config["model_cfg"]
    vision = dict(told["vision_cfg"])
    if size is not None:
        vision["image_size"] = size
    if vision.get("timm_model_name"):
        vision["timm_model_pretrained"] = False
    whole = {"model_cfg": {**told, "vision_cfg": vision}, "preprocess_cfg": dict(config.get("preprocess_cfg", {}))}
    with torch.inference_mode(False):  # or it could never learn
        if BACKBONE in vision:
            visual: nn.Module = TimmBackbone(vision[BACKBONE], told["embed_dim"], size=vision["image_size"])
        else:
            gelu = bool(told.get("quick_gelu", False))
            visual = CLIP(embed_dim=told["embed_dim"], vision_cfg=vision, text_cfg=NO_TEXT, quick_gelu=gelu).visual
    return _alone(visual.eval(), whole, name, precision)


def resized_tower(clip: Clip, size: int) -> Clip:
    """Return a copy of a CLIP's image tower whose native size is a side of ``size`` pixels, without a text tower.

    Of the size whole patches are taken. Learned positions are brought to the new grid once, bilinearly, and learn
    there; timm's transformers are made at one size alone, and have theirs resized in every pass.

    Source: ``raoyongming/DenseCLIP`` ``segmentation/denseclip/models.py``, where weights are loaded.
    """
    size = size // clip.patch * clip.patch
    made = image_tower(clip.config, name=clip.name, size=size, precision=clip.precision)
    wanted = made.tower.visual.state_dict()
    state = {
        key: _at(tensor, wanted[key], clip, made) if key in POSITIONS else tensor
        for key, tensor in clip.tower.visual.state_dict().items()
        if key in wanted  # tables that follow from the size are the new tower's own
    }
    made.tower.visual.load_state_dict({**wanted, **state})
    made.tower.visual.train(clip.tower.visual.training)
    return made.to(clip.device)


def grafted_tower(clip: Clip, backbone: str, size: int, weights: str | Path | None = None) -> Clip:
    """Return a backbone of timm's in the place of a CLIP's image tower, for the same joint space, without a text tower.

    ``weights`` as in ``give_weights``, random if None; images are normalised as timm's own model wants them.

    Raises:
        ModelError: timm has no such backbone, or the weights cannot be had.

    Source: DenseCLIP (arXiv 2112.01518), Section 4.3.
    """
    visual = TimmBackbone(backbone, clip.dim, size=size).train(clip.tower.visual.training)
    if weights is not None:
        give_weights(visual.stages, backbone, weights)
    told = {**clip.config["model_cfg"], "vision_cfg": {BACKBONE: backbone, "image_size": visual.image_size}}
    seen = {"mean": list(visual.mean), "std": list(visual.std)}
    return _alone(visual, {"model_cfg": told, "preprocess_cfg": seen}, clip.name, clip.precision).to(clip.device)


def _alone(visual: nn.Module, config: Mapping[str, Any], name: str, precision: str) -> Clip:
    holder = nn.Module()
    holder.visual = visual
    return Clip(holder, config, name=name, precision=precision)


def _at(stored: Tensor, wanted: Tensor, clip: Clip, made: Clip) -> Tensor:
    """Return stored positions at the grid of another tower."""
    rows = stored[0] if stored.ndim == 3 else stored
    prefix = len(rows) - clip.tower.native_grid[0] * clip.tower.native_grid[1]
    resized = resize_position_embedding(
        rows, made.tower.native_grid, prefix=prefix, mode="bilinear", native=clip.tower.native_grid
    )
    return resized.reshape(wanted.shape)
