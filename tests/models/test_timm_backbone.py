"""The backbone against timm's own features, its pool against torch's attention, and what no backbone can be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from closeup.errors import CloseupError, InputError, ModelError
from closeup.models.clip import Clip
from closeup.models.pos_embed import resize_position_embedding
from closeup.models.reading import Reading
from closeup.models.routes import get_route
from closeup.models.timm_backbone import TimmBackbone, TimmBackboneTower, random_pool
from closeup.models.timm_weights import give_weights
from goldens import assert_close
from tiny_towers import randomise

SWIN = "swin_tiny_patch4_window7_224"
NAMES = ["test_resnet", "test_convnext2", "test_efficientnet", SWIN]
LAST_FOUR: dict[str, Any] = {"features_only": True, "out_indices": (-4, -3, -2, -1)}


@pytest.fixture(scope="module", params=NAMES)
def backbone(request: pytest.FixtureRequest) -> TimmBackbone:
    made = TimmBackbone(request.param, 24, size=64)
    randomise(made)
    return made.eval()


def pictures(rows: int = 64, cols: int = 96, count: int = 2) -> Tensor:
    return torch.randn(count, 3, rows, cols, generator=torch.Generator().manual_seed(5))


def read(backbone: TimmBackbone, images: Tensor) -> Reading:
    """Everything from one pass: maps, embedding and dense map."""
    return TimmBackboneTower.from_visual(backbone, 24).read(images, range(4), get_route("attention"))


def own_features(backbone: TimmBackbone, name: str, images: Tensor, **options: object) -> list[Tensor]:
    """timm's features with the backbone's weights, rows and columns last."""
    own = timm.create_model(name, **LAST_FOUR, **options).eval()
    own.load_state_dict(backbone.stages.state_dict())
    return [level.permute(0, 3, 1, 2) if name == SWIN else level for level in own(images)]


@pytest.mark.parametrize("name", NAMES[:3])
@torch.no_grad()
def test_levels_are_timms_own(name: str) -> None:
    backbone = TimmBackbone(name, 24, size=64)
    randomise(backbone)
    images = pictures(96, 160)
    for level, expected in zip(backbone(images), own_features(backbone, name, images), strict=True):
        assert torch.equal(level, expected)


@pytest.mark.parametrize(("size", "rows", "cols"), [(64, 224, 224), (256, 256, 256), (250, 320, 256)])
@torch.no_grad()
def test_a_swin_is_timms_own_made_for_the_size(size: int, rows: int, cols: int) -> None:
    """At its own size as ImageNet's; at a larger one with the windows of its last stage shifted too."""
    backbone = TimmBackbone(SWIN, 24, size=size)
    randomise(backbone)
    images = pictures(rows, cols, count=1)
    for level, expected in zip(
        backbone(images), own_features(backbone, SWIN, images, img_size=(rows, cols)), strict=True
    ):
        assert_close(level, expected, 1e-5)


@torch.no_grad()
def test_shapes(backbone: TimmBackbone) -> None:
    reading = read(backbone, pictures(64, 96))
    assert reading.pooled is not None
    assert reading.dense is not None
    assert reading.pooled.shape == (2, 24)
    assert reading.dense.shape == (2, 24, 2, 3)
    for level, stride in zip(reading.levels, (4, 8, 16, 32), strict=True):
        assert level.shape[2:] == (64 / stride, 96 / stride)


@torch.no_grad()
def test_it_is_a_clip_like_any_other(backbone: TimmBackbone) -> None:
    holder = nn.Module()
    holder.visual = backbone
    clip = Clip(holder, {"model_cfg": {"embed_dim": 24}}, precision="fp32")
    assert (clip.tower.family, clip.patch, clip.blocks, clip.image_size) == ("timm backbone", 32, 4, (64, 64))
    images = pictures(49, 70)
    padded = torch.zeros(2, 3, 64, 96)
    padded[:, :, :49, :70] = images
    found, expected = clip.read(images, range(4), route="attention"), read(backbone, padded)
    for ours, theirs in zip(flat(found), flat(expected), strict=True):
        assert torch.equal(ours, theirs)
    assert_close(clip.encode_image(padded), flat(expected)[-2], 1e-4)
    with pytest.raises(InputError, match="no transformer block"):
        clip.encode_dense(images, route="value-cls-residual")


@torch.no_grad()
def test_a_permuted_batch_gives_permuted_readings(backbone: TimmBackbone) -> None:
    images, order = pictures(count=3), torch.tensor([2, 0, 1])
    for found, expected in zip(flat(read(backbone, images[order])), flat(read(backbone, images)), strict=True):
        assert_close(found, expected[order], 1e-5)


@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
@torch.no_grad()
def test_the_pool_is_torchs_attention(backbone: TimmBackbone, size: tuple[int, int]) -> None:
    reading = read(backbone, pictures(*size))
    pool, last = backbone.attnpool, reading.levels[-1]
    assert pool.positional_embedding.shape == (1 + 2 * 2, last.shape[1])
    positions = resize_position_embedding(pool.positional_embedding, (last.shape[2], last.shape[3]), mode="bilinear")
    cells = last.flatten(2).permute(2, 0, 1)
    tokens = torch.cat([cells.mean(0, keepdim=True), cells]) + positions[:, None]
    expected, _ = F.multi_head_attention_forward(
        tokens,
        tokens,
        tokens,
        tokens.shape[2],
        pool.num_heads,
        None,
        torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
        None,
        None,
        False,
        0.0,
        pool.c_proj.weight,
        pool.c_proj.bias,
        training=False,
        need_weights=False,
        use_separate_proj_weight=True,
        q_proj_weight=pool.q_proj.weight,
        k_proj_weight=pool.k_proj.weight,
        v_proj_weight=pool.v_proj.weight,
    )
    assert reading.pooled is not None
    assert reading.dense is not None
    assert_close(reading.pooled, expected[0], 1e-5)
    assert_close(reading.dense.flatten(2), expected[1:].permute(1, 2, 0), 1e-5)


def test_gradients_reach_everything(backbone: TimmBackbone) -> None:
    images = pictures().requires_grad_()
    torch.stack([part.square().mean() for part in flat(read(backbone, images))]).sum().backward()
    # The key bias cancels in the softmax.
    lost = [name for name, each in backbone.named_parameters() if each.grad is None or not each.grad.abs().max() > 0]
    assert lost in ([], ["attnpool.k_proj.bias"])
    assert images.grad is not None
    assert images.grad.abs().amax(dim=1).min() > 0
    backbone.zero_grad()


def test_it_is_made_ready_to_learn() -> None:
    made = TimmBackbone("test_resnet", 24, size=100)
    own = timm.get_pretrained_cfg("test_resnet")
    assert own is not None
    assert (made.mean, made.std) == (own.mean, own.std)
    assert all(module.training for module in made.modules())
    assert made.attnpool.positional_embedding.shape[0] == 1 + 4 * 4
    clean: Any = made.stages.get_submodule("bn1")
    assert clean.num_batches_tracked == 0


@pytest.mark.parametrize(("width", "heads"), [(2048, 32), (768, 12), (320, 5), (368, 4), (48, 1)])
def test_heads_divide_the_width(width: int, heads: int) -> None:
    assert random_pool(width, 8, 2).num_heads == heads


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_weights_of_the_whole_model(name: str, tmp_path: Path) -> None:
    """The classifier, which may have other classes, and what older files hold beside weights, are left out."""
    whole = randomise(timm.create_model(name, num_classes=7))
    state = {key: tensor for key, tensor in whole.state_dict().items() if not key.endswith("num_batches_tracked")}
    if name == SWIN:
        state["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.int64)
    save_file(state, tmp_path / "weights.safetensors")
    backbone = TimmBackbone(name, 24, size=64).eval()
    give_weights(backbone.stages, name, tmp_path / "weights.safetensors")
    images = pictures(224, 224, count=1)
    _, expected = whole.eval().forward_intermediates(images)  # type: ignore[operator]
    assert torch.equal(backbone(images)[-1], expected[-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layer1.0.conv1.weight"), "layer1.0.conv1.weight is missing"),
        (lambda state: state.update({"layer9.weight": torch.zeros(2)}), "layer9.weight is unknown"),
        (lambda state: state.update({"bn1.weight": torch.zeros(2)}), r"bn1.weight is \(2,\) and not \(32,\)"),
    ],
)
def test_other_weights_are_refused(change: Callable[[dict[str, Tensor]], object], message: str, tmp_path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    change(state)
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=message):
        give_weights(TimmBackbone("test_resnet", 24, size=64).stages, "test_resnet", tmp_path / "weights.pt")


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("resnet5O", {}, ModelError, "no model 'resnet5O'. Did you mean .*'resnet50'"),
        (
            "resnet50.a1_in1",
            {},
            ModelError,
            "no weights 'a1_in1' of .*'resnet50'. Did you mean 'resnet50.a1_in1k'",
        ),
        (
            "vit_tiny_patch16_224",
            {},
            ModelError,
            "'vit_tiny_patch16_224' gives no four maps .*Choose",
        ),
        ("mvitv2_nope", {}, ModelError, "Did you mean 'mvitv2_"),
        ("levit_128", {}, ModelError, "'levit_128' gives no four maps"),
        ("test_maxvit", {}, ModelError, "'test_maxvit' gives no four maps of an image of any size"),
        ("test_resnet", {"size": 0}, InputError, "size=0"),
        ("test_resnet", {"dim": 0}, InputError, "dim=0"),
        ("test_resnet", {"weights": "x.pt"}, ModelError, "no checkpoint file 'x.pt'"),
        ("test_byobnet", {"weights": "timm"}, ModelError, "could not be fetched"),
    ],
)
def test_bad_input(
    name: str,
    options: dict[str, Any],
    error: type[CloseupError],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(error, match=message):
        with_weights(name, **options)


def with_weights(name: str, *, dim: int = 24, size: int = 64, weights: str = "") -> None:
    give_weights(TimmBackbone(name, dim, size=size).stages, name, weights)


def flat(reading: Reading) -> list[Tensor]:
    assert reading.pooled is not None
    assert reading.dense is not None
    return [*reading.levels, reading.pooled, reading.dense]
