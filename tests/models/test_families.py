"""What holds for every tower family: small random ones, and the published architectures."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from open_clip import CLIP
from open_clip.timm_model import TimmModel
from torch import nn

from closeup.errors import ModelError
from closeup.models.clip import Clip
from closeup.models.families import FAMILIES, build_tower
from goldens import assert_close
from tiny_clips import PE_CORE, as_clip, eva_model, picture, vit_config, vit_model
from tiny_towers import fastvit_clip, images, published_clip, randomise, resnet_clip, timm_clip, timm_vit_clip

Make = Callable[[], Any]


def quick_gelu_model() -> CLIP:
    return randomise(CLIP(**vit_config(), quick_gelu=True))


SMALL: list[tuple[str, str, Make]] = [
    # what it is small of, family, model
    ("openai", "ViT", quick_gelu_model),
    ("laion", "ViT", vit_model),
    ("eva02", "EVA", eva_model),
    ("perception-encoder", "EVA", partial(eva_model, **PE_CORE)),
    ("rn50", "ResNet", resnet_clip),
    ("siglip", "timm ViT", timm_vit_clip),
    ("siglip-384-14", "timm ViT", partial(timm_vit_clip, img_size=70)),  # a native size that the patch does not divide
    ("convnext", "timm convolutional", partial(timm_clip, "test_convnext2", image_size=64)),
    ("mobileclip-s", "timm convolutional", fastvit_clip),
]

PUBLISHED = {
    "ViT": ("ViT-B-32-quickgelu", "ViT-B-16"),
    "EVA": ("EVA02-B-16", "PE-Core-S-16-384"),
    "ResNet": ("RN50", "RN101", "RN50x4"),
    "timm ViT": ("ViT-B-16-SigLIP", "ViT-B-16-SigLIP2", "MobileCLIP-B", "ViTamin-S"),
    "timm convolutional": ("convnext_base", "MobileCLIP-S1", "MobileCLIP2-S3"),
}

EVERY = [pytest.param(family, make, id=name) for name, family, make in SMALL] + [
    pytest.param(family, partial(published_clip, name), id=name, marks=pytest.mark.slow)
    for family, names in PUBLISHED.items()
    for name in names
]

PICTURES = [picture(height, width, seed).numpy() for seed, (height, width) in enumerate([(40, 64), (90, 33), (40, 64)])]
BOXES: list[list[list[float]]] = [
    [[0, 0, 64, 40], [5.5, 3, 20, 33]],
    [[1, 1, 30, 80]],
    [[30, 10, 31, 11], [0, 20, 64, 40]],
]


def opened(make: Make) -> Clip:
    model = make()
    text: Any = getattr(model, "text", model)
    return as_clip(model, {"embed_dim": text.text_projection.shape[1]})


@pytest.mark.parametrize(("family", "make"), EVERY)
@torch.no_grad()
def test_a_family_keeps_its_promises(family: str, make: Make) -> None:
    clip = opened(make)
    assert clip.tower.family == family

    native = images(*clip.image_size)
    expected = clip.model.encode_image(native)
    assert_close(clip.encode_both(native, route="attention", normalize=False)[0], expected)
    assert_close(clip.encode_image(native), expected)

    for height, width in ((64, 64), (96, 160), (130, 70)):
        for route in clip.tower.routes:
            maps = clip.encode_dense(images(height, width, count=1), route=route)
            assert maps.shape == (1, expected.shape[1], -(-height // clip.patch), -(-width // clip.patch))
            assert maps.isfinite().all()

    together = clip.encode_regions(PICTURES, boxes=BOXES, size=96, batch=2)
    for image, box in ((0, 1), (1, 0)):
        alone = clip.encode_regions(PICTURES[image], boxes=[BOXES[image][box]], size=96)[0]
        assert_close(together[image][box], alone[0])


@pytest.mark.parametrize(("family", "make"), EVERY[: len(SMALL)])
def test_what_inference_leaves_behind_can_be_trained_on(family: str, make: Make) -> None:
    clip = opened(make)
    with torch.inference_mode():
        clip.encode_dense(images(96, 64))
    clip.encode_dense(images(96, 64), route="attention").sum().backward()
    assert any(weight.grad is not None for weight in clip.model.parameters()), family


@pytest.mark.parametrize(("family", "make"), EVERY[: len(SMALL)])
def test_every_family_knows_its_own_and_no_other(family: str, make: Make) -> None:
    visual = make().visual
    assert [known.family for known in FAMILIES if known.accepts(visual)] == [family]


def test_unknown_family_names_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"image tower 'Linear'. The families are ViT, EVA, ResNet, timm ViT"):
        build_tower(nn.Linear(2, 2), 24)
    with pytest.raises(ModelError, match="image tower 'SwinTransformer'"):
        build_tower(TimmModel("swin_tiny_patch4_window7_224", 24, pool="avg", proj="linear"), 24)
