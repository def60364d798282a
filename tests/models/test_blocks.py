from __future__ import annotations

from collections.abc import Callable

import pytest

from closeup.errors import ConfigError
from closeup.models.blocks import blocks_of, reached, region_blocks, trainable_blocks
from closeup.models.clip import Clip
from tiny_clips import as_clip, eva_clip, vit_clip
from tiny_towers import fastvit_clip, resnet_clip, timm_clip, timm_vit_clip

FAMILIES: dict[str, tuple[Callable[[], Clip], list[str]]] = {
    "vit": (vit_clip, ["resblocks.0.", "resblocks.1.", "resblocks.2."]),
    "eva": (eva_clip, ["trunk.blocks.0.", "trunk.blocks.1.", "trunk.blocks.2."]),
    "timm vit": (lambda: as_clip(timm_vit_clip()), ["trunk.blocks.0.", "trunk.blocks.1.", "trunk.blocks.2."]),
    "resnet": (lambda: as_clip(resnet_clip()), ["layer1.", "layer2.", "layer3.", "layer4."]),
    "convnext": (lambda: as_clip(timm_clip("test_convnext")), [f"trunk.stages.{i}." for i in range(4)]),
    "fastvit": (lambda: as_clip(fastvit_clip()), [f"trunk.stages.{i}." for i in range(4)]),
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple[Clip, list[str]]:
    make, blocks = FAMILIES[request.param]
    return make(), blocks


def test_only_the_last_blocks_are_chosen(family: tuple[Clip, list[str]]) -> None:
    clip, blocks = family
    assert len(blocks_of(clip.tower)) == len(blocks) == clip.blocks
    whole = dict(clip.model.named_parameters())
    for count in (1, 2, len(blocks), None):
        chosen = trainable_blocks(clip, count)
        inside = tuple(f"{part}" for part in (blocks if count is None else blocks[-count:]))
        assert set(chosen) == {name for name in whole if name.startswith("visual.") and any(p in name for p in inside)}
        assert all(whole[name] is parameter for name, parameter in chosen.items())


@pytest.mark.parametrize("count", [0, -1, 4])
def test_a_number_of_blocks_that_there_is_not_is_an_error(count: int) -> None:
    with pytest.raises(ConfigError, match=f"`blocks` is {count}: .* has 3 blocks"):
        trainable_blocks(vit_clip(), count)


def test_only_parameters_of_the_graph_are_reached() -> None:
    clip = vit_clip()
    parameters = dict(clip.model.named_parameters())
    weight = parameters["visual.conv1.weight"]
    assert reached(weight.sum(), parameters) == {"visual.conv1.weight": weight}


def test_of_a_clip_resnet_norms_and_the_first_stage_do_not_learn() -> None:
    """Other towers learn their blocks, whatever they are made of."""
    chosen = region_blocks(as_clip(resnet_clip()))
    assert {name.split(".")[1] for name in chosen} == {"layer2", "layer3", "layer4", "attnpool"}
    assert not [name for name in chosen if ".bn" in name or "downsample.1" in name]
    last = {name.split(".")[1] for name in region_blocks(as_clip(resnet_clip()), 1)}
    assert last == {"layer4", "attnpool"}
    clip = vit_clip()
    assert region_blocks(clip, 2).keys() == trainable_blocks(clip, 2).keys()
    with pytest.raises(ConfigError, match="`blocks` is 0"):
        region_blocks(as_clip(resnet_clip()), 0)
