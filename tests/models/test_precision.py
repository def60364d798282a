from __future__ import annotations

import pytest
import torch
from open_clip import CLIP

from closeup.models.levels import with_levels
from closeup.models.precision import PARITY, bf16_is_fast, parity
from closeup.models.tower import ImageTower
from tiny_clips import as_clip, vit_clip, vit_config, vit_model
from tiny_towers import images


def test_parity_is_a_cosine_near_one() -> None:
    assert PARITY < parity(vit_clip().tower, torch.device("cpu")) < 1


def test_answer_for_this_machine_is_a_bool() -> None:
    assert isinstance(bf16_is_fast(torch.device("cpu")), bool)
    assert not bf16_is_fast(torch.device("meta"))


def fragile(model: CLIP) -> CLIP:
    """Shift the last tokens so far that bf16 cannot tell them apart."""
    with torch.no_grad():
        model.visual.transformer.resblocks[-1].mlp.c_proj.bias.add_(3000.0)
        model.visual.transformer.resblocks[0].ln_1.weight.mul_(40.0)
        model.visual.transformer.resblocks[1].ln_1.weight.mul_(40.0)
    return model


@pytest.mark.skipif(not bf16_is_fast(torch.device("cpu")), reason="this CPU has no bf16 matrix unit")
@torch.no_grad()
def test_auto_halves_only_a_model_that_bears_it() -> None:
    pictures = images(32, 32)
    for model, halved in ((vit_model(), True), (fragile(vit_model()), False)):
        auto, exact = (as_clip(model, vit_config(), precision) for precision in ("auto", "fp32"))
        assert (parity(auto.tower, torch.device("cpu")) >= PARITY) is halved
        assert torch.equal(auto.encode_dense(pictures), exact.encode_dense(pictures)) is not halved


@pytest.mark.skipif(not bf16_is_fast(torch.device("cpu")), reason="this CPU has no bf16 matrix unit")
@torch.no_grad()
def test_what_a_model_bears_is_found_out_once_for_all_views(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []

    def counted(tower: ImageTower, device: torch.device) -> float:
        asked.append(device)
        return parity(tower, device)

    monkeypatch.setattr("closeup.models.clip.parity", counted)
    clip = as_clip(vit_model(), precision="auto")
    for level in (0, 1, 0):  # a view a photo, as predictions make them
        with_levels(clip, (level,)).encode_image(images(32, 32))
    clip.to("cpu").encode_dense(images(32, 32))
    assert asked == [torch.device("cpu")]
