"""Small random CLIPs with open_clip's ViT and timm's Eva, and the same behind Closeup's Clip."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from open_clip import CLIP, CustomTextCLIP, SimpleTokenizer
from open_clip.transformer import QuickGELU, VisionTransformer
from timm.models import register_model
from timm.models.eva import Eva
from torch import nn

from closeup.models.clip import Clip
from closeup.models.official_keys import official_eva_to_timm
from goldens import Golden
from tiny_towers import randomise

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VISION = {"layers": 3, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}
EVA_NAME = "closeup_test_eva"
EVA02 = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 48,
    "depth": 3,
    "num_heads": 3,
    "mlp_ratio": 2.6667,
    "qkv_fused": False,
    "swiglu_mlp": True,
    "scale_mlp": True,
    "scale_attn_inner": True,
    "use_rot_pos_emb": True,
    "ref_feat_shape": (16, 16),
}
PE_CORE: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 48,
    "depth": 3,
    "num_heads": 3,
    "mlp_ratio": 4.0,
    "global_pool": "map",
    "attn_type": "rope",
    "use_pre_transformer_norm": True,
    "use_rot_pos_emb": True,
    "ref_feat_shape": (4, 4),
    "rope_grid_offset": 1.0,
    "rope_grid_indexing": "xy",
    "attn_pool_num_heads": 4,
    "attn_pool_mlp_ratio": 4.0,
}


def closeup_test_eva(pretrained: bool = False, **kwargs: object) -> Eva:
    """Be to timm what ``eva02_base_patch16_clip_224`` is, but tiny."""
    kwargs.pop("pretrained_cfg", None)
    kwargs.pop("pretrained_cfg_overlay", None)
    kwargs.pop("cache_dir", None)
    return Eva(**{**EVA02, **kwargs})


closeup_test_eva.__module__ = "timm.models.eva"
register_model(closeup_test_eva)


def vit_config(dim: int = 24, **vision: object) -> dict[str, Any]:
    return {"embed_dim": dim, "vision_cfg": {**VISION, **vision}, "text_cfg": dict(TEXT)}


def eva_config(dim: int = 24) -> dict[str, Any]:
    vision = {"timm_model_name": EVA_NAME, "timm_pool": "token", "timm_proj": None, "image_size": 32}
    return {"embed_dim": dim, "vision_cfg": vision, "text_cfg": dict(TEXT), "custom_text": True}


def vit_model(seed: int = 0, dim: int = 24, **vision: object) -> CLIP:
    return randomise(CLIP(**vit_config(dim, **vision)), seed)


def eva_model(seed: int = 0, **trunk: object) -> CustomTextCLIP:
    """Return a CLIP around timm's Eva: tiny EVA02 unless told otherwise."""
    config = eva_config()
    config.pop("custom_text")
    model = CustomTextCLIP(**config)
    if trunk:
        model.visual.trunk = Eva(**{**EVA02, "global_pool": "token", "num_classes": 24, **trunk})
    return randomise(model, seed)


def golden_eva(golden: Golden) -> CustomTextCLIP:
    """Return timm's Eva with the weights of a golden of the official EVA02 tower."""
    vision = golden.config["model"]["vision_cfg"]
    model = eva_model()
    model.visual.trunk = Eva(
        **EVA02
        | {"img_size": vision["image_size"], "patch_size": vision["patch_size"], "embed_dim": vision["width"]}
        | {"depth": vision["layers"], "num_heads": vision["width"] // vision["head_width"]}
        | {"mlp_ratio": vision["mlp_ratio"], "num_classes": golden.config["model"]["embed_dim"]}
        | {"global_pool": "token"}
    )
    state = official_eva_to_timm(golden.weights())
    visual = {name.removeprefix("visual."): weight for name, weight in state.items() if name.startswith("visual.")}
    model.visual.load_state_dict(visual)
    return model.eval()


def as_clip(model: nn.Module, config: dict[str, Any] | None = None, precision: str = "fp32") -> Clip:
    described = {"model_cfg": deepcopy(config or vit_config()), "preprocess_cfg": {}}
    return Clip(model, described, name="tiny test", tokenizer=SimpleTokenizer, precision=precision)


def vit_clip(seed: int = 0, **vision: object) -> Clip:
    return as_clip(vit_model(seed, 24, **vision), vit_config(24, **vision))


def eva_clip(seed: int = 0) -> Clip:
    return as_clip(eva_model(seed), eva_config())


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Return smooth coloured noise, uint8 ``(height, width, 3)``; ``.numpy()`` is an ImageLike."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 8 + 2, width // 8 + 2, generator=generator)
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (smooth[0].permute(1, 2, 0) * 255).byte()


def official_vit(golden: Golden, config: dict[str, int]) -> VisionTransformer:
    """Return a golden's ViT, the weights of its pyramid left out."""
    visual = VisionTransformer(
        image_size=config["input_resolution"],
        patch_size=config["patch_size"],
        width=config["width"],
        layers=config["layers"],
        heads=config["heads"],
        mlp_ratio=4.0,
        output_dim=config["output_dim"],
        act_layer=QuickGELU,
    ).eval()
    state = {name: weight for name, weight in golden.weights().items() if "fpn" not in name}
    for name in [name for name in state if name.endswith("q_proj_weight")]:
        parts = [state.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        state[name.replace("q_proj", "in_proj")] = torch.cat(parts)
    visual.load_state_dict(state)
    return visual
