from __future__ import annotations

import pytest
from open_clip.timm_model import TimmModel
from torch import nn

from closeup.errors import ModelError
from closeup.models.families import FAMILIES, build_tower
from tiny_clips import eva_model, vit_model
from tiny_towers import fastvit_clip, resnet_clip, timm_vit_clip


@pytest.mark.parametrize(
    ("make", "family"),
    [
        (vit_model, "ViT"),
        (eva_model, "EVA"),
        (resnet_clip, "ResNet"),
        (timm_vit_clip, "timm ViT"),
        (fastvit_clip, "timm convolutional"),
    ],
)
def test_every_family_knows_its_own_and_no_other(make: object, family: str) -> None:
    visual = make().visual
    assert [known.family for known in FAMILIES if known.accepts(visual)] == [family]
    assert build_tower(visual, 24).family == family


def test_unknown_family_names_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"image tower 'Linear'. The families are ViT, EVA, ResNet, timm ViT"):
        build_tower(nn.Linear(2, 2), 24)
    with pytest.raises(ModelError, match="image tower 'SwinTransformer'"):
        build_tower(TimmModel("swin_tiny_patch4_window7_224", 24, pool="avg", proj="linear"), 24)
