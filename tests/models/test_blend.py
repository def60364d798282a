from __future__ import annotations

import math
from pathlib import Path

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from closeup.errors import InputError, ModelError
from closeup.models import load, save_local_dir
from closeup.models.blend import blend, blend_card
from closeup.models.clip import Clip
from tiny_clips import as_clip, eva_clip, vit_clip, vit_config, vit_model
from tiny_towers import images


def weights(clip: Clip) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in clip.model.state_dict().items()}


@pytest.fixture(params=[vit_clip, eva_clip], ids=["vit", "eva"])
def pair(request: pytest.FixtureRequest) -> tuple[Clip, Clip]:
    return request.param(seed=1), request.param(seed=2)


@pytest.mark.parametrize("alpha", [0.25, 0.7, 0.95])
def test_every_weight_is_the_weighted_mean(pair: tuple[Clip, Clip], alpha: float) -> None:
    base, adapted = map(weights, pair)
    mixed = weights(blend(*pair, alpha))
    assert list(mixed) == list(adapted)
    for name, value in mixed.items():
        if value.is_floating_point():
            expected = alpha * adapted[name].double() + (1 - alpha) * base[name].double()
            assert torch.allclose(value.double(), expected, atol=1e-6, rtol=1e-6)


def test_the_ends_are_the_two_models_exactly(pair: tuple[Clip, Clip]) -> None:
    base, adapted = pair
    assert blend(base, adapted, 0).fingerprint == base.fingerprint
    assert blend(base, adapted, 1).fingerprint == adapted.fingerprint


@settings(max_examples=20, deadline=None)
@given(alpha=st.floats(0, 1), beta=st.floats(0, 1))
def test_a_blend_of_blends_is_a_blend(alpha: float, beta: float) -> None:
    base, adapted = vit_clip(seed=1), vit_clip(seed=2)
    twice, once = weights(blend(base, blend(base, adapted, alpha), beta)), weights(blend(base, adapted, alpha * beta))
    assert all(torch.allclose(value, once[name], atol=1e-5) for name, value in twice.items())


def test_both_models_stay_as_they_are(pair: tuple[Clip, Clip]) -> None:
    before = [clip.fingerprint for clip in pair]
    mixed = blend(*pair, 0.5)
    for parameter in mixed.model.parameters():
        parameter.data.zero_()
    assert [as_clip(clip.model, clip.config["model_cfg"]).fingerprint for clip in pair] == before
    assert not mixed.model.training


def test_whole_numbers_are_the_adapted_models() -> None:
    base, adapted = vit_clip(seed=1), vit_clip(seed=2)
    for clip, steps in ((base, 3), (adapted, 8)):
        clip.model.register_buffer("steps", torch.tensor(steps))
    assert int(weights(blend(base, adapted, 0.5))["steps"]) == 8


@torch.no_grad()
def test_a_blend_reads_text_and_is_open_clips(tmp_path: Path) -> None:
    base, adapted = vit_clip(seed=1), vit_clip(seed=2)
    mixed = blend(base, adapted, 0.5)
    folder = save_local_dir(mixed, tmp_path / "mixed", {"blend": blend_card(base, adapted, 0.5)})
    assert load(folder, device="cpu").fingerprint == mixed.fingerprint
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    pictures = images(32, 32)
    assert torch.allclose(model.encode_image(pictures), mixed.encode_image(pictures), atol=1e-5)
    assert not torch.allclose(mixed.encode_text(["a dog"]), base.encode_text(["a dog"]), atol=1e-3)


def test_the_card_tells_both_models() -> None:
    base, adapted = vit_clip(seed=1), vit_clip(seed=2)
    assert blend_card(base, adapted, 0.7) == {
        "alpha": 0.7,
        "base": {"name": "tiny test", "fingerprint": base.fingerprint},
        "adapted": {"name": "tiny test", "fingerprint": adapted.fingerprint},
    }


@pytest.mark.parametrize("alpha", [-0.1, 1.01, 2.0, math.nan])
def test_alpha_outside_the_line_is_refused(alpha: float) -> None:
    with pytest.raises(InputError, match=f"alpha {alpha:g} is outside 0 to 1"):
        blend(vit_clip(), vit_clip(), alpha)


def test_other_architectures_are_refused() -> None:
    with pytest.raises(ModelError, match=r"not adapted from .*: its tower is EVA and not ViT"):
        blend(vit_clip(), eva_clip(), 0.5)
    with pytest.raises(ModelError, match=r"visual\..* is .* and not .*more"):
        blend(vit_clip(), vit_clip(width=48), 0.5)


def test_other_activations_are_refused() -> None:
    quick: nn.Module = vit_model()
    with pytest.raises(ModelError, match="QuickGELU"):
        blend(vit_clip(), as_clip(quick, vit_config() | {"quick_gelu": True}), 0.5)
