from __future__ import annotations

import pytest
import torch
from torch import Tensor

from closeup.errors import ConfigError
from closeup.heads.cost_aggregator import DROPPED, Aggregator, AggregatorConfig
from closeup.heads.cost_attention import WindowBlock
from goldens import Golden, assert_close, cases
from tiny_towers import randomise

RENAMED = {
    "conv1.": "embed.",
    "guidance_projection.": "places.",
    "text_places.": "words.",
    "decoder_places.": "guides.",
    "decoder1.": "decoder.0.",
    "decoder2.": "decoder.1.",
    "conv.double_conv.": "convolutions.",
    "swin_block.guidance_norm": "guide_norm",
    "swin_block.block_1.": "windows.0.",
    "swin_block.block_2.": "windows.1.",
    "mlp.fc1.": "mlp.0.",
    "mlp.fc2.": "mlp.2.",
    "attn.q.": "query.",
    "attn.k.": "key.",
    "attn.v.": "value.",
    "attn.proj.": "out.",
    "attention.attention.q.": "words.query.",
    "attention.attention.k.": "words.key.",
    "attention.attention.v.": "words.value.",
    "attention.MLP.": "words.mlp.",
    "attention.norm": "words.norm",
    "attention.padding_tokens": "words.pad_token",
    "attention.padding_guidance": "words.pad_guide",
}
SMALL = AggregatorConfig(
    hidden=32, window=4, appearance=12, meaning=16, decoder=(32, 16), guidance=(8, 4), padding=6, heads=4
)


def renamed(name: str) -> str:
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return name


def official(golden: Golden, padding: int) -> Aggregator:
    config = golden.config
    made = Aggregator(
        config["text_guidance_dim"],
        (config["appearance_guidance_dim"], *config["decoder_guidance_dims"]),
        AggregatorConfig(
            hidden=config["hidden_dim"],
            heads=config["nheads"],
            layers=config["num_layers"],
            window=config["window_size"],
            appearance=config["appearance_guidance_proj_dim"],
            meaning=config["text_guidance_proj_dim"],
            decoder=tuple(config["decoder_dims"]),
            guidance=tuple(config["decoder_guidance_proj_dims"]),
            prompts=config["prompt_channel"],
            padding=padding,
        ),
    )
    state = {renamed(name): weight for name, weight in golden.weights().items()}
    made.load_state_dict({n: w.flatten() if n.endswith(("pad_token", "pad_guide")) else w for n, w in state.items()})
    return made.eval()


@pytest.mark.parametrize("golden", cases("catseg_aggregator"))
@torch.no_grad()
def test_the_official_logits(golden: Golden) -> None:
    config = golden.config
    guidance = [golden[f"in/guidance{level}"] for level in range(3)]
    for name in sorted({name.split("/")[0] for name in golden.names("out/")}):
        words, *_ = name.removeprefix("T_").split("_")
        counts = {"small": config["T_small"], "equal": config["pad_len"], "large": config["T_large"]}
        padding = 256 if name.endswith("pad256") else config["pad_len"]
        pool = 1 if name.endswith("pool1") else config["pooling_size"][0]
        made = official(golden, padding)
        text = golden["in/text_feats"][:, : counts[words]]
        assert_close(made(golden["in/img_feats"], text, guidance, pool=pool), golden[f"out/{name}/logits"])


def made_inputs(words: int = 4, rows: int = 7, cols: int = 9) -> tuple[Tensor, Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 20, rows, cols, generator=generator)
    text = torch.randn(2, words, 1, 20, generator=generator)
    guidance = [
        torch.randn(2, wide, rows * by, cols * by, generator=generator) for wide, by in ((14, 1), (10, 2), (6, 4))
    ]
    return maps, text, guidance


def made(config: AggregatorConfig = SMALL) -> Aggregator:
    aggregator = Aggregator(20, (14, 10, 6), config)
    randomise(aggregator)
    return aggregator


@torch.no_grad()
def test_a_map_that_windows_do_not_divide_is_seen_without_its_pad() -> None:
    """Compare with each window by itself: the shift 0 leaves windows whole, and the last ones are smaller."""
    block = WindowBlock(32, 12, heads=4, window=4, shift=0)
    randomise(block)
    maps, guide = torch.randn(3, 6, 9, 32), torch.randn(3, 6, 9, 12)
    found = block(maps, guide)
    for top in (0, 4):
        for left in (0, 4, 8):
            part = (slice(None), slice(top, top + 4), slice(left, left + 4))
            torch.testing.assert_close(found[part], block(maps[part], guide[part]), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_shifted_window_sees_neighbours_alone() -> None:
    block = WindowBlock(32, 12, heads=4, window=4, shift=2)
    randomise(block)
    maps, guide = torch.randn(1, 8, 10, 32), torch.randn(1, 8, 10, 12)
    found = block(maps, guide)
    changed = maps.clone()
    changed[:, 0, 0] += torch.randn(32)  # its window is the corner of two by two
    moved = (block(changed, guide) - found).abs().amax(dim=3)[0] > 1e-6
    expected = torch.zeros(8, 10, dtype=torch.bool)
    expected[:2, :2] = True
    assert torch.equal(moved, expected)
    changed = maps.clone()
    changed[:, 3, 3] += torch.randn(32)
    moved = (block(changed, guide) - found).abs().amax(dim=3)[0] > 1e-6
    expected = torch.zeros(8, 10, dtype=torch.bool)
    expected[2:6, 2:6] = True
    assert torch.equal(moved, expected)


@torch.no_grad()
def test_the_order_of_words_is_that_of_logits() -> None:
    aggregator, (maps, words, guidance) = made(), made_inputs()
    order = torch.tensor([2, 0, 3, 1])
    logits = aggregator(maps, words, guidance)
    assert logits.shape == (2, 4, 28, 36)
    torch.testing.assert_close(aggregator(maps, words[:, order], guidance), logits[:, order], atol=1e-4, rtol=1e-4)
    alone = aggregator(maps[:1], words[:1], [level[:1] for level in guidance])
    torch.testing.assert_close(alone, logits[:1], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_of_too_many_words_each_picture_keeps_its_likeliest() -> None:
    aggregator, (maps, words, guidance) = made(), made_inputs(words=9)
    logits = aggregator(maps, words, guidance)
    dropped = (logits == DROPPED).flatten(2).all(dim=2)
    assert dropped.sum(dim=1).tolist() == [3, 3]
    for picture in range(2):
        cosines = torch.cosine_similarity(maps[picture].flatten(1).T[:, None], words[picture, :, 0][None], dim=2)
        worst = cosines.amax(dim=0).argsort()[:3]
        assert dropped[picture].nonzero().flatten().tolist() == sorted(worst.tolist())


def test_every_parameter_learns() -> None:
    aggregator, (maps, words, guidance) = made(), made_inputs()
    aggregator(maps, words, guidance, pool=2).square().mean().backward()
    assert [name for name, each in aggregator.named_parameters() if each.grad is None or not each.grad.any()] == []


@pytest.mark.parametrize("wrong", [{"hidden": 30}, {"window": 0}, {"guidance": (32, 4)}, {"padding": 0}])
def test_settings_out_of_range_are_said(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        SMALL.replace(**wrong)
