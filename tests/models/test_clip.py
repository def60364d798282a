from __future__ import annotations

import open_clip
import pytest
import torch
import torch.nn.functional as F

from closeup.errors import InputError, ModelError
from closeup.models.clip import Clip
from goldens import assert_close
from tiny_clips import as_clip, eva_clip, vit_clip, vit_config, vit_model
from tiny_towers import images


@pytest.fixture(params=[vit_clip, eva_clip], ids=["vit", "eva"])
def clip(request: pytest.FixtureRequest) -> Clip:
    made: Clip = request.param()
    return made


def test_properties_tell_what_was_built() -> None:
    clip = vit_clip(image_size=(24, 40))
    assert (clip.dim, clip.patch, clip.blocks, clip.image_size) == (24, 8, 3, (24, 40))
    assert clip.mean == open_clip.OPENAI_DATASET_MEAN
    assert clip.std == open_clip.OPENAI_DATASET_STD
    assert repr(clip) == "Clip('tiny test', ViT, dim=24, 24 x 40 px, patch=8)"
    clip.model.logit_scale.data.fill_(0.0)
    assert clip.logit_scale == 1.0


@torch.no_grad()
def test_image_and_text_embeddings_are_open_clips(clip: Clip) -> None:
    pictures, texts = images(*clip.image_size), ["a dog", "two cats on a mat", ""]
    assert_close(clip.encode_image(pictures), clip.model.encode_image(pictures), 1e-5)
    assert_close(clip.encode_image(pictures, normalize=True), clip.model.encode_image(pictures, normalize=True), 1e-5)
    tokens = open_clip.tokenize(texts)
    assert_close(clip.encode_text(texts), clip.model.encode_text(tokens, normalize=True), 1e-5)
    assert_close(clip.encode_text(texts, normalize=False, batch=2), clip.model.encode_text(tokens), 1e-5)
    assert clip.encode_text([]).shape == (0, 24)


@pytest.mark.parametrize("size", [(32, 32), (17, 33), (1, 1), (41, 8)])
@torch.no_grad()
def test_map_covers_the_image_at_any_size(clip: Clip, size: tuple[int, int]) -> None:
    maps = clip.encode_dense(images(*size))
    assert maps.shape == (2, 24, -(-size[0] // 8), -(-size[1] // 8))
    assert_close(maps.norm(dim=1), torch.ones(maps.shape[0], *maps.shape[2:]), 1e-5)


@torch.no_grad()
def test_pad_is_zero_right_and_below(clip: Clip) -> None:
    pictures = images(19, 30)
    by_hand = F.pad(pictures, (0, 2, 0, 5))
    assert torch.equal(clip.encode_dense(pictures, normalize=False), clip.encode_dense(by_hand, normalize=False))
    assert torch.equal(clip.encode_image(pictures), clip.encode_image(by_hand))


@torch.no_grad()
def test_both_are_the_two_apart(clip: Clip) -> None:
    pictures = images(*clip.image_size)
    pooled, maps = clip.encode_both(pictures)
    assert_close(pooled, clip.encode_image(pictures, normalize=True), 1e-5)
    assert_close(maps, clip.encode_dense(pictures, route="attention"), 1e-6)


def test_gradients_flow_through_images_and_texts(clip: Clip) -> None:
    clip.encode_dense(images(19, 30)).sum().backward()
    clip.encode_image(images(32, 32)).sum().backward()
    clip.features(images(32, 32), [-1])[0].sum().backward()
    clip.encode_tokens(open_clip.tokenize(["a dog"]))[0, 0].backward()
    graded = {name for name, weight in clip.model.named_parameters() if weight.grad is not None}
    assert any(name.startswith("visual") for name in graded)
    assert any("token_embedding" in name for name in graded)


def test_text_of_inference_can_enter_a_loss() -> None:
    clip = vit_clip()
    words = clip.encode_text(["a dog"])
    assert not words.requires_grad
    (clip.encode_dense(images(16, 16)).flatten(2) * words[0][None, :, None]).sum().backward()
    assert clip.model.visual.conv1.weight.grad is not None


@torch.no_grad()
def test_text_is_full_precision_under_any_autocast(clip: Clip) -> None:
    exact = clip.encode_text(["a dog", "a cat"])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(clip.encode_text(["a dog", "a cat"]), exact)
        assert not torch.equal(clip.encode_tokens(open_clip.tokenize(["a dog", "a cat"])), exact)


def test_one_string_is_no_list_of_texts() -> None:
    with pytest.raises(InputError, match="list of texts"):
        vit_clip().encode_text("a dog")


def test_unknown_route_and_precision_are_refused() -> None:
    with pytest.raises(InputError, match=r"Unknown route 'vale'. Did you mean 'value'"):
        vit_clip().encode_dense(images(16, 16), route="vale")
    with pytest.raises(InputError, match="Unknown precision 'fp8'"):
        as_clip(vit_model(), precision="fp8")


def test_model_without_a_tokenizer_says_so() -> None:
    clip = Clip(vit_model(), {"model_cfg": vit_config()}, precision="fp32")
    with pytest.raises(ModelError, match="without a tokenizer"):
        clip.encode_text(["a dog"])


def test_fingerprint_is_of_the_weights() -> None:
    first, same, other = vit_clip(seed=1), vit_clip(seed=1), vit_clip(seed=2)
    assert first.fingerprint == same.fingerprint != other.fingerprint
    assert vit_clip(seed=1).to("cpu").fingerprint == first.fingerprint
    with torch.no_grad():
        same.model.visual.conv1.weight[0, 0, 0, 0] += 1
    assert first.fingerprint != same.fingerprint
    assert len(first.fingerprint) == 64
    first.model.visual.conv1.weight = torch.nn.Parameter(other.model.visual.conv1.weight.detach().clone())
    assert first.fingerprint != vit_clip(seed=1).fingerprint


def test_half_precision_is_for_inference_only(clip: Clip) -> None:
    half = as_clip(clip.model, clip.config["model_cfg"], precision="bf16")
    pictures = images(40, 24)
    with torch.no_grad():
        exact, rounded = clip.encode_dense(pictures), half.encode_dense(pictures)
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    assert float((exact * rounded).sum(dim=1).min()) > 0.99
    assert torch.equal(half.encode_dense(pictures), clip.encode_dense(pictures))
