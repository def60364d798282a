"""The official EVA-CLIP key names (EVA-CLIP, CLIPSelf) in timm's words."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

RENAMES = (
    ("attn.q_bias", "attn.q_proj.bias"),
    ("attn.v_bias", "attn.v_proj.bias"),
    ("attn.inner_attn_ln", "attn.norm"),
    ("mlp.w1", "mlp.fc1_g"),
    ("mlp.w2", "mlp.fc1_x"),
    ("mlp.w3", "mlp.fc2"),
    ("mlp.ffn_ln", "mlp.norm"),
)
"""Official and timm's name of each part of a block that is not called the same."""


def is_official_eva(state: Mapping[str, Tensor]) -> bool:
    """Tell whether the image tower's keys are those of the official EVA02-CLIP code."""
    return any(name.endswith("attn.q_bias") for name in state) and any("mlp.w1" in name for name in state)


def official_eva_to_timm(state: Mapping[str, Tensor], prefix: str = "visual.trunk.") -> dict[str, Tensor]:
    """Rename official EVA02 keys to timm's; ``visual.`` becomes ``prefix``, other keys stay.

    The rotary tables (``rope.freqs_cos``, ``rope.freqs_sin``) are dropped: they are constants, computed anew
    for every size. Text tower and logit scale have the same names on both sides.
    """
    return {_rename(name, prefix): tensor for name, tensor in state.items() if "rope.freqs_" not in name}


def _rename(name: str, prefix: str) -> str:
    if not name.startswith("visual."):
        return name
    name = prefix + name.removeprefix("visual.")
    for official, timm in RENAMES:
        name = name.replace(official, timm)
    return name
