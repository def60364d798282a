"""A dense predictor as a whole: made from any tower, trained, saved, and used without a text tower."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from open_clip import CLIP
from torch import Tensor

from closeup._types import IGNORE
from closeup.errors import CloseupError, ConfigError, InputError, ModelError
from closeup.heads.dense_predictor import (
    DensePredictor,
    load_dense_predictor,
    new_dense_predictor,
    save_dense_predictor,
)
from closeup.heads.denseclip_config import DenseClipConfig
from closeup.models.clip import Clip
from closeup.models.load import load
from tiny_clips import TEXT, as_clip, eva_clip, vit_clip
from tiny_towers import images, randomise

WORDS = ("star", "traffic light", "грузовик", "cup, or a mug", " ".join(["very"] * 19 + ["old"]))
SMALL: dict[str, Any] = {
    "contexts": 2, "context_std": 0.05, "decoder_width": 8, "decoder_heads": 2, "decoder_layers": 1,
    "channels": 8, "hidden": 8, "decoder_dropout": 0.0, "dropout": 0.0,
}  # fmt: skip
KINDS = ("learned", "post", "pre", "instance")


@pytest.fixture(scope="module")
def tiny() -> Clip:
    return load("random:tiny", device="cpu", precision="fp32")


def made(clip: Clip, size: int = 48, words: tuple[str, ...] = WORDS, **config: object) -> DensePredictor:
    torch.manual_seed(0)
    return new_dense_predictor(
        clip, words, [False] * len(words), templates="simple", size=size, config={**SMALL, **config}
    )


def batch(side: int = 48, words: int = len(WORDS), count: int = 2) -> dict[str, Tensor]:
    torch.manual_seed(1)
    labels = torch.randint(0, words, (count, side, side))
    labels[:, :5] = IGNORE
    return {"images": torch.randn(count, 3, side, side), "labels": labels}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_prompt_learns_and_leaves_the_text_tower_alone(tiny: Clip, kind: str) -> None:
    predictor = made(tiny, prompts=kind, gamma=1.0)
    head = predictor.head.train()
    before = {name: tensor.clone() for name, tensor in tiny.model.state_dict().items()}
    losses = head(batch())
    losses["loss"].backward()
    torch.testing.assert_close(losses["loss"], losses["pixels"] + 0.4 * losses["scores"])
    lacking = [name for name, p in head.named_parameters() if p.requires_grad and p.grad is None]
    assert not lacking
    assert head.prompting is not None
    assert head.prompting.contexts is not None
    assert float(head.prompting.contexts.contexts.grad.abs().max()) > 0  # type: ignore[union-attr]
    assert all(parameter.grad is None for parameter in tiny.model.parameters())
    assert not any("token_embedding" in name for name, _ in head.named_parameters())
    torch.optim.SGD([p for p in head.parameters() if p.requires_grad], lr=0.1).step()
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny.model.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_pictures_of_a_batch_are_alone(tiny: Clip, kind: str) -> None:
    head = made(tiny, prompts=kind, gamma=1.0).head.eval()
    pictures = batch(count=3)["images"]
    logits, scores = head.read(pictures)
    turned, turned_scores = head.read(pictures.flip(0))
    torch.testing.assert_close(turned.flip(0), logits, rtol=1e-4, atol=1e-5)
    assert scores is not None
    assert turned_scores is not None
    torch.testing.assert_close(turned_scores.flip(0), scores, rtol=1e-4, atol=1e-5)
    assert scores.abs().max() <= 1 + 1e-5


@torch.no_grad()
def test_a_words_score_does_not_depend_on_the_other_words(tiny: Clip) -> None:
    torch.manual_seed(0)
    few, many = (made(tiny, words=words, prompts="learned").head.eval() for words in (WORDS[:3], WORDS))
    for head in (few, many):
        assert head.prompting is not None
        assert head.prompting.contexts is not None
        head.prompting.contexts.contexts.fill_(0.01)
        head.prompting.train().eval()
    pictures = batch()["images"]
    less, more = few.read(pictures)[1], many.read(pictures)[1]
    assert less is not None
    assert more is not None
    torch.testing.assert_close(less, more[:, :3], rtol=1e-4, atol=1e-5)


def resnet() -> Clip:
    vision = {"layers": [1, 2, 1, 1], "width": 8, "image_size": 64}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT}
    return as_clip(randomise(CLIP(24, vision, TEXT)), config)


@pytest.mark.parametrize("name", ["vit", "eva", "resnet"])
@torch.no_grad()
def test_towers_of_every_family_and_sizes_of_every_kind(name: str) -> None:
    clip = {"vit": vit_clip, "eva": eva_clip, "resnet": resnet}[name]()
    predictor = made(clip, size=64, words=("a", "b"), contexts=0, blocks=(0, 1, 1, 2) if name != "resnet" else ())
    head = predictor.head.eval()
    for height, width in ((64, 64), (64, 96), (96, 40)):
        logits, scores = head.read(images(height, width))
        finest = predictor.head.backbone.strides[0]
        padded = [-(-side // clip.patch) * clip.patch for side in (height, width)]
        assert logits.shape == (2, 2, *(round(side / finest) for side in padded))
        assert scores is not None
        assert scores.shape[2:] == tuple(side // clip.patch for side in padded)


@torch.no_grad()
def test_positions_are_stored_at_the_size_of_training(tiny: Clip) -> None:
    backbone = made(tiny, size=80).head.backbone
    assert backbone.clip.image_size == (80, 80)
    assert backbone.visual.get_parameter("positional_embedding").shape[0] == 10 * 10 + 1
    assert tiny.image_size == (64, 64)


@pytest.mark.parametrize("kind", ["learned", "post"])
@torch.no_grad()
def test_what_is_saved_needs_no_clip_at_all(tiny: Clip, tmp_path: Path, kind: str) -> None:
    predictor = made(tiny, prompts=kind, gamma=1.0)
    assert predictor.head.prompting is not None
    assert predictor.head.prompting.contexts is not None
    # Contexts have moved since the words were last embedded.
    predictor.head.prompting.contexts.contexts.add_(0.3)
    folder = save_dense_predictor(predictor, tmp_path / "head", {"trained": 1})
    card = json.loads((folder / "card.json").read_text())
    card["clip"]["name"] = "no-such-model"
    (folder / "card.json").write_text(json.dumps(card))
    again = load_dense_predictor(folder, device="cpu", precision="fp32")
    assert [name for name, _ in again.clip.model.named_children()] == ["visual"]
    assert again.words == WORDS
    assert again.size == 48
    pictures = batch()["images"]
    for ours, theirs in zip(again.head.read(pictures), predictor.head.eval().read(pictures), strict=True):
        torch.testing.assert_close(ours, theirs)
    with pytest.raises(ModelError, match="without a tokenizer"):
        again.clip.encode_text(["a star"])


@pytest.mark.parametrize("kind", ["pre", "instance"])
@torch.no_grad()
def test_prompts_that_see_the_picture_take_their_clip_along(tiny: Clip, tmp_path: Path, kind: str) -> None:
    predictor = made(tiny, prompts=kind)
    folder = save_dense_predictor(predictor, tmp_path / "head")
    again = load_dense_predictor(folder, device="cpu", precision="fp32")
    pictures = batch()["images"]
    torch.testing.assert_close(again.head.read(pictures)[0], predictor.head.eval().read(pictures)[0])
    other = load("random:tiny@5", device="cpu", precision="fp32")
    with pytest.raises(ModelError, match="Give the same model"):
        load_dense_predictor(folder, clip=other)


@torch.no_grad()
def test_a_plain_pyramid_has_no_words_and_reads_no_joint_space(tiny: Clip, tmp_path: Path) -> None:
    predictor = made(tiny, language=False)
    head = predictor.head.train()
    assert set(head(batch())) == {"loss", "pixels"}
    learned = {name for name, p in head.named_parameters() if p.requires_grad}
    assert "backbone.visual.proj" not in learned
    assert "backbone.visual.conv1.weight" in learned
    again = load_dense_predictor(save_dense_predictor(predictor, tmp_path / "plain"), device="cpu", precision="fp32")
    pictures = batch()["images"]
    torch.testing.assert_close(again.head.read(pictures)[0], predictor.head.eval().read(pictures)[0])


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext2", "swin_tiny_patch4_window7_224"])
@torch.no_grad()
def test_any_backbone_of_timms_takes_the_towers_place(tiny: Clip, tmp_path: Path, backbone: str) -> None:
    predictor = made(tiny, size=64, backbone=backbone)
    losses = predictor.head.train()(batch(side=64))
    assert losses["loss"].isfinite()
    assert predictor.eyes.mean != tiny.mean  # ImageNet's, not CLIP's
    folder = save_dense_predictor(predictor, tmp_path / "head")
    again = load_dense_predictor(folder, device="cpu", precision="fp32")
    assert (again.eyes.mean, again.eyes.std) == (predictor.eyes.mean, predictor.eyes.std)
    pictures = batch(side=64)["images"]
    torch.testing.assert_close(again.head.read(pictures), predictor.head.eval().read(pictures))


@pytest.mark.parametrize("size", [100, 97])
def test_labels_lie_where_the_logits_do_though_patches_do_not_fit(tiny: Clip, size: int) -> None:
    """A canvas that is no whole number of patches learns as the same one padded to them, nothing labelled there."""
    head, seen = made(tiny, size=size).head.eval(), batch(side=size)
    rest = -size % tiny.patch
    padded = {
        "images": F.pad(seen["images"], (0, rest, 0, rest)),
        "labels": F.pad(seen["labels"], (0, rest, 0, rest), value=IGNORE),
    }
    ours, theirs = head(seen), head(padded)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@torch.no_grad()
def test_a_mean_over_processes_is_told_by_the_loop(tiny: Clip) -> None:
    head, seen = made(tiny).head.eval(), batch()
    count = (seen["labels"] != IGNORE).sum()
    twice = head({**seen, "terms": 2.0 * count})
    torch.testing.assert_close(2 * twice["loss"], head(seen)["loss"])


def test_making_and_loading_leave_chance_and_running_means_alone(tmp_path: Path) -> None:
    clip = resnet()
    predictor = made(clip, size=64, contexts=0)
    before = {name: tensor.clone() for name, tensor in clip.tower.visual.state_dict().items()}
    for name, tensor in predictor.head.backbone.visual.state_dict().items():
        if "running" in name:
            assert torch.equal(tensor, before[name])
    folder = save_dense_predictor(predictor, tmp_path / "head")
    state = torch.get_rng_state()
    with torch.inference_mode():
        again = load_dense_predictor(folder, device="cpu", precision="fp32")
    assert torch.equal(torch.get_rng_state(), state)
    assert not again.head.training


@pytest.mark.parametrize(
    ("clip", "config", "error", "said"),
    [
        (resnet, {"blocks": (0, 1, 2, 3)}, ModelError, "are of a ViT; a ResNet tower has four stages"),
        (resnet, {"class_embedding": "double"}, ModelError, "ResNet tower has no class embedding"),
        (vit_clip, {"size": 15}, InputError, "size 15 is too small: give at least two cells of 8 px"),
        (vit_clip, {"size": 63, "backbone": "test_resnet"}, InputError, "two cells of 32 px"),
        (vit_clip, {"blocks": (3, 2, 1, 0)}, ConfigError, "the first ones first"),
        (vit_clip, {"backbone_weights": "x.pt"}, ConfigError, "no `backbone` is named"),
        (vit_clip, {"templates": "simpel"}, InputError, "Did you mean 'simple'"),
    ],
)
def test_what_cannot_be_made(
    clip: Callable[[], Clip], config: dict[str, Any], error: type[CloseupError], said: str
) -> None:
    config = {"size": 64, "templates": "simple", "contexts": 0, **config}
    size, templates = config.pop("size"), config.pop("templates")
    with pytest.raises(error, match=said):
        new_dense_predictor(clip(), ("a", "b"), (False, False), templates=templates, size=size, config=config)


def test_the_official_divisor_counts_ignored_pixels(tiny: Clip) -> None:
    seen = batch()
    valid = made(tiny, average="valid").head.eval()(seen)
    every = made(tiny, average="all").head.eval()(seen)
    share = float((seen["labels"] != IGNORE).float().mean())
    torch.testing.assert_close(every["loss"], share * valid["loss"])
    nothing = made(tiny).head.train()({**seen, "labels": torch.full_like(seen["labels"], IGNORE)})
    assert float(nothing["loss"].detach()) == 0


@pytest.mark.parametrize(
    "config",
    [
        {"decoder_width": 10, "decoder_heads": 4},
        {"contexts": 0, "prompts": "pre"},
        {"contexts": -1},
        {"temperature": 0.0},
        {"blocks": (1, 2)},
        {"dropout": 1.0},
        {"prompts": "both"},
        {"channels": 0},
    ],
)
def test_settings_outside_their_range(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        DenseClipConfig().replace(**config)
