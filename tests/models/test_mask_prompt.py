from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, VisionTransformer
from safetensors.torch import save_file
from torch import Tensor, nn

from closeup.errors import InputError, ModelError
from closeup.models import load
from closeup.models.blend import blend
from closeup.models.changes import save_changes
from closeup.models.checkpoint import save_local_dir
from closeup.models.clip import Clip
from closeup.models.families import build_tower
from closeup.models.mask_prompt import MaskPrompts, encode_prompted, give_prompts, kept_cells, prompts_of
from closeup.models.token_tower import TokenTower
from closeup.models.tower import ImageTower
from closeup.models.vit import VitTower
from goldens import Golden, assert_close, cases
from tiny_clips import as_clip, eva_model, vit_config, vit_model
from tiny_towers import images, resnet_clip, timm_vit_clip

TOWERS: dict[str, Callable[[], nn.Module]] = {
    "vit": lambda: vit_model().visual,
    "mean": lambda: vit_model(pool_type="avg").visual,
    "eva": lambda: eva_model().visual,
    "siglip": lambda: timm_vit_clip(proj="linear").visual,
    "registers": lambda: timm_vit_clip(proj="linear", class_token=True, reg_tokens=2, global_pool="token").visual,
}


@pytest.fixture(params=TOWERS)
def tower(request: pytest.FixtureRequest) -> TokenTower:
    visual = TOWERS[request.param]()
    tower = build_tower(visual, 24)
    assert isinstance(tower, TokenTower)
    return tower


def official(golden: Golden) -> VitTower:
    config = golden.config
    visual = VisionTransformer(
        image_size=config["input_resolution"],
        patch_size=config["patch_size"],
        width=config["width"],
        layers=config["layers"],
        heads=config["heads"],
        mlp_ratio=4.0,
        output_dim=config["output_dim"],
        act_layer=QuickGELU,
    )
    visual.load_state_dict({name: weight for name, weight in golden.weights().items() if name != "mask_embedding"})
    return VitTower(visual.eval(), dim=config["output_dim"])


def with_tokens(tower: ImageTower, tokens: Tensor) -> MaskPrompts:
    prompts = MaskPrompts(tower, depth=len(tokens), shared=tokens.shape[1] == 1)
    prompts.load_state_dict({"tokens": tokens})
    return prompts


@pytest.mark.parametrize("golden", cases("ovseg_mask_prompt"))
@torch.no_grad()
def test_the_official_towers_embeddings(golden: Golden) -> None:
    tower, tokens = official(golden), golden["w/mask_embedding"]
    kept = kept_cells(golden["in/mask"][:, 0] > 0, tower.patch)
    assert torch.equal(kept, golden["out/keep"] > 0)
    for name, given in {
        f"depth{len(tokens)}": tokens,
        "depth1": tokens[:1],
        f"depth{len(tokens)}_shared": golden["in/mask_embedding_shared"],
    }.items():
        prompts = with_tokens(tower, given)
        assert_close(encode_prompted(tower, golden["in/image"], kept, prompts), golden[f"out/{name}"])
        # One crop alone, which the official code fails for.
        alone = encode_prompted(tower, golden["in/image"][:1], kept[:1], prompts)
        assert_close(alone, golden[f"out/{name}"][:1])
    assert_close(tower.pooled(golden["in/image"]), golden["out/nomask"])


@torch.no_grad()
def test_a_mask_of_ones_changes_nothing(tower: TokenTower) -> None:
    height, width = tower.image_size
    pictures = images(height, width)
    kept = kept_cells(torch.ones(2, height, width, dtype=torch.bool), tower.patch)
    assert torch.equal(encode_prompted(tower, pictures, kept, MaskPrompts(tower)), tower.pooled(pictures))


@torch.no_grad()
def test_what_is_left_out_is_not_seen_and_what_is_kept_is(tower: TokenTower) -> None:
    (height, width), patch = tower.image_size, tower.patch
    pictures = images(height, width, 1)
    masks = torch.zeros(1, height, width, dtype=torch.bool)
    masks[:, : 2 * patch, : patch + 1] = True
    kept, prompts = kept_cells(masks, patch), MaskPrompts(tower, depth=1)
    prompts.tokens.normal_()
    changed = pictures.clone()
    changed[:, :, 2 * patch :] += 1
    before = encode_prompted(tower, pictures, kept, prompts)
    torch.testing.assert_close(encode_prompted(tower, changed, kept, prompts), before)
    changed[:, :, 0, patch + 1] += 5  # a pixel outside of the mask, in a patch that it touches
    assert not torch.allclose(encode_prompted(tower, changed, kept, prompts), before, atol=1e-4)


@torch.no_grad()
def test_prompts_enter_after_each_block_as_a_hook_would_put_them(tower: TokenTower) -> None:
    """Compare with a tower whose blocks are followed by a hook that writes the prompts in, token by token."""
    (height, width), depth = tower.image_size, 3
    pictures = images(height, width)
    kept = torch.rand(2, tower.native_grid[0] * tower.native_grid[1]) > 0.5
    prompts = MaskPrompts(tower, depth=depth)
    prompts.tokens.normal_()

    def written(tokens: Tensor, place: int, prefix: int) -> Tensor:
        tokens = tokens.clone()
        for row, cell in (~kept).nonzero().tolist():
            tokens[row, prefix + cell] = prompts.tokens[place, cell]
        return tokens

    tokens = tower.assemble(written(tower.patches(pictures), 0, 0), tower.native_grid)
    for index in range(tower.depth):
        tokens = tower.run_block(index, tokens, tower.native_grid)
        tokens = written(tokens, index + 1, tower.prefix) if index + 1 < depth else tokens
    torch.testing.assert_close(encode_prompted(tower, pictures, kept, prompts), tower.pool(tokens))


def test_cells_are_kept_as_pooling_keeps_them() -> None:
    masks = torch.rand(3, 24, 40, generator=torch.Generator().manual_seed(0)) > 0.97
    expected = F.max_pool2d(masks[:, None].float(), 8)[:, 0].flatten(1) > 0
    assert torch.equal(kept_cells(masks, 8), expected)
    with pytest.raises(InputError, match="24 x 41 pixels are not a whole number of 8-pixel cells"):
        kept_cells(torch.ones(1, 24, 41, dtype=torch.bool), 8)


@torch.no_grad()
def test_regions_do_not_see_each_other(tower: TokenTower) -> None:
    pictures = images(*tower.image_size, 3)
    kept = torch.rand(3, tower.native_grid[0] * tower.native_grid[1]) > 0.5
    prompts = MaskPrompts(tower)
    together, order = encode_prompted(tower, pictures, kept, prompts), torch.tensor([2, 0, 1])
    torch.testing.assert_close(encode_prompted(tower, pictures[order], kept[order], prompts), together[order])
    assert encode_prompted(tower, pictures[:0], kept[:0], prompts).shape == (0, together.shape[1])


def test_prompts_learn_and_are_resized_to_other_grids(tower: TokenTower) -> None:
    prompts = MaskPrompts(tower)
    rows, cols = tower.native_grid
    assert prompts.tokens.shape[:2] == (3, rows * cols)
    assert abs(float(prompts.tokens.detach().std()) - 0.02) < 2e-3
    kept = torch.zeros(1, 2 * rows * cols, dtype=torch.bool)
    kept[:, 0] = True
    height, width = tower.image_size
    encode_prompted(tower, images(2 * height, width, 1), kept, prompts).square().sum().backward()
    assert prompts.tokens.grad is not None
    assert bool((prompts.tokens.grad != 0).any(dim=2).all())


def test_what_cannot_be_prompted_is_said() -> None:
    with pytest.raises(ModelError, match="patch tokens"):
        MaskPrompts(build_tower(resnet_clip().visual, 24))
    tower = build_tower(vit_model().visual, 24)
    for depth in (0, 4):
        with pytest.raises(InputError, match=f"depth {depth}: give 1 to 3"):
            MaskPrompts(tower, depth=depth)
    with pytest.raises(InputError, match=r"\(1, 16\) cells for 2 images of 4 x 4 cells"):
        encode_prompted(tower, images(32, 32), torch.ones(1, 16, dtype=torch.bool), MaskPrompts(tower))


def prompted() -> Clip:
    clip = as_clip(vit_model(), vit_config())
    give_prompts(clip.tower, depth=2).tokens.data.normal_()
    return clip


@torch.no_grad()
def test_a_clip_with_prompts_sees_what_masks_cover() -> None:
    clip, pictures = prompted(), images(32, 32, 3)
    masks = torch.zeros(3, 32, 32, dtype=torch.bool)
    masks[:, :9] = True
    prompts = prompts_of(clip.tower)
    assert prompts is not None
    expected = encode_prompted(clip.tower, pictures, kept_cells(masks, 8), prompts)
    torch.testing.assert_close(clip.encode_masked(pictures, masks), expected)
    for size in ((32, 32), (30, 45)):
        shown = images(*size)
        whole = torch.ones(2, *size, dtype=torch.bool)
        torch.testing.assert_close(
            clip.encode_masked(shown, whole, normalize=True), clip.encode_image(shown, normalize=True)
        )
    with pytest.raises(InputError, match=r"Masks of \(32, 31\)"):
        clip.encode_masked(pictures, masks[:, :, 1:])
    with pytest.raises(InputError, match="has no mask prompts"):
        as_clip(vit_model(), vit_config()).encode_masked(pictures, masks)


def tokens_of(clip: Clip) -> Tensor:
    prompts = prompts_of(clip.tower)
    assert prompts is not None
    return prompts.tokens.detach()


def test_prompts_are_saved_beside_what_open_clip_loads(tmp_path: Path) -> None:
    clip, bare = prompted(), as_clip(vit_model(), vit_config())
    assert clip.fingerprint != bare.fingerprint
    assert clip.text_fingerprint == bare.text_fingerprint
    save_local_dir(clip, tmp_path / "whole")
    loaded = load(tmp_path / "whole", device="cpu")
    assert torch.equal(tokens_of(loaded), tokens_of(clip))
    assert loaded.fingerprint == clip.fingerprint
    plain = open_clip.create_model(f"local-dir:{tmp_path / 'whole'}")
    assert prompts_of(as_clip(plain, vit_config()).tower) is None
    save_local_dir(bare, tmp_path / "whole")
    assert prompts_of(load(tmp_path / "whole", device="cpu").tower) is None


def test_prompts_are_among_what_an_adaptation_changed(tmp_path: Path) -> None:
    save_local_dir(as_clip(vit_model(), vit_config()), tmp_path / "base")
    base, adapted = (load(tmp_path / "base", device="cpu") for _ in range(2))
    give_prompts(adapted.tower, depth=1, shared=True)
    save_changes(adapted, base, tmp_path / "changed")
    loaded = load(tmp_path / "changed", device="cpu")
    assert torch.equal(tokens_of(loaded), tokens_of(adapted))
    blended = blend(base, adapted, 0.5)
    assert torch.equal(tokens_of(blended), tokens_of(adapted))
    assert prompts_of(base.tower) is None


def test_prompts_of_another_tower_are_said(tmp_path: Path) -> None:
    save_local_dir(prompted(), tmp_path / "one")
    file = tmp_path / "one" / "mask_prompts.safetensors"
    for wrong, said in ((torch.zeros(2, 9, 32), r"\(2, 9, 32\) and not \(2, 16, 32\)"), (torch.zeros(3), "no table")):
        save_file({"visual.mask_prompts.tokens": wrong}, file)
        with pytest.raises(ModelError, match=said):
            load(tmp_path / "one", device="cpu")
