"""Random CLIPs of the convolutional and timm families: small ones, and the published architectures."""

from __future__ import annotations

from typing import Any

import open_clip
import torch
from open_clip import CLIP
from timm.models.fastvit import FastVit
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

TEXT = {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1}


def randomise(module: nn.Module, seed: int = 0, conv_gain: float = 1.5) -> nn.Module:
    """Give every parameter and running statistic a value that hides nothing: no zero scale, no equal norm."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        # Convolutions need more, or ReLUs fade the picture out; a sharp attention pool needs most.
        gain = 4.0 if "attnpool" in name else conv_gain if tensor.dim() == 4 else 1.2
        value = noise * (gain * tensor[0].numel() ** -0.5) if tensor.dim() > 1 else noise * 0.2
        is_scale = tensor.dim() == 1 and (name.endswith(("weight", "running_var", "gamma")))
        tensor.copy_(value.abs() + 0.5 if is_scale else value)
    return module.eval()


def published_clip(name: str) -> CLIP:
    """Return the image tower of a published architecture as it is initialised, beside a small text tower."""
    config = open_clip.get_model_config(name)
    return CLIP(config["embed_dim"], config["vision_cfg"], TEXT, quick_gelu=config.get("quick_gelu", False)).eval()


def resnet_clip(image_size: int = 64) -> CLIP:
    vision = {"layers": [1, 2, 1, 1], "width": 8, "image_size": image_size}
    return randomise(CLIP(24, vision, TEXT))


def timm_clip(name: str, dim: int = 24, image_size: int = 160, proj: str = "linear", pool: str = "") -> CLIP:
    vision = {"timm_model_name": name, "timm_pool": pool, "timm_proj": proj, "image_size": image_size}
    return randomise(CLIP(dim, vision, TEXT))


def timm_vit_clip(seed: int = 0, proj: str = "none", **options: object) -> CLIP:
    """Return a CLIP around a timm ViT of 3 blocks, 64 px with patch 16 unless told otherwise."""
    settings: dict[str, Any] = {"img_size": 64, "patch_size": 16, "embed_dim": 32, "depth": 3, "num_heads": 2}
    settings |= {"num_classes": 0, "class_token": False, "global_pool": "map", **options}
    size = settings["img_size"]
    width = settings["embed_dim"] if proj == "none" else 24
    clip = timm_clip("test_vit3", dim=width, image_size=size, proj=proj, pool="map")
    clip.visual.trunk = VisionTransformer(**settings)
    if proj != "none":
        clip.visual.head[-1] = nn.Linear(settings["embed_dim"], width, bias=False)
    return randomise(clip, seed)


def fastvit_clip() -> CLIP:
    clip = timm_clip("test_convnext", dim=24, image_size=64)
    mixers = ("repmixer", "repmixer", "repmixer", "attention")
    clip.visual.trunk = FastVit(
        layers=(1, 1, 1, 1), embed_dims=(32, 32, 32, 64), mlp_ratios=(2,) * 4, token_mixers=mixers, num_classes=24
    )
    clip.visual.head = nn.Sequential()
    return randomise(clip, conv_gain=1.0)


def images(height: int, width: int, count: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))
