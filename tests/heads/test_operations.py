"""Counts against numbers computed by hand, and against the figures of DenseCLIP's table."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from closeup.heads.operations import count_operations, count_operations_as_published, count_parameters
from closeup.models.attention_pool import pool_every_query

WORDS = 150


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("grad", [True, False])
def test_each_kind_by_hand(device: str, grad: bool) -> None:
    with torch.device(device), torch.set_grad_enabled(grad):
        maps, tokens = torch.zeros(2, 8, 16, 10), torch.zeros(3, 7, 16)
        queries, keys = torch.zeros(2, 4, 10, 16), torch.zeros(2, 4, 7, 16)
        attention = nn.MultiheadAttention(16, 4, batch_first=True).eval()
        layer = nn.TransformerEncoderLayer(16, 4, 64, batch_first=True).eval()
        inside = 3 * 7 * 16 * 16 * 4 + 3 * 7 * 7 * 16 * 2
        conv, grouped = nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.Conv2d(8, 12, 3, padding=1, groups=4)
        transposed, linear = nn.ConvTranspose2d(8, 12, 2, stride=2), nn.Linear(16, 5)
        runs = [
            (lambda: conv(maps), 2 * 8 * 5 * 8 * 12 * 9),
            (lambda: grouped(maps), 2 * 16 * 10 * 2 * 12 * 9),
            (lambda: transposed(maps), 2 * 16 * 10 * 8 * 12 * 4),
            (lambda: linear(tokens), 3 * 7 * 16 * 5),
            (lambda: queries @ keys.mT, 2 * 4 * 10 * 7 * 16),
            (lambda: torch.bmm(queries[0], keys[0].mT), 4 * 10 * 7 * 16),
            (lambda: torch.einsum("bnqd,bnkd->bnqk", queries, keys), 2 * 4 * 10 * 7 * 16),
            (lambda: torch.einsum("bchw,bkc->bkhw", maps, torch.zeros(2, 5, 8)), 2 * 16 * 10 * 8 * 5),
            (lambda: F.scaled_dot_product_attention(queries, keys, keys), 2 * 4 * 10 * 7 * 16 * 2),
            (lambda: F.scaled_dot_product_attention(queries, keys, keys, torch.zeros(10, 7)), 2 * 4 * 10 * 7 * 16 * 2),
            (lambda: attention(tokens, tokens, tokens), inside),
            (lambda: attention(tokens, tokens, tokens, need_weights=False), inside),
            (lambda: layer(tokens), inside + 3 * 7 * 16 * 64 * 2),
            (lambda: tokens[0] @ torch.zeros(16), 7 * 16),
            (lambda: tokens[0, 0] @ torch.zeros(16), 16),
            (lambda: F.batch_norm(maps.relu() + 1, torch.zeros(8), torch.ones(8)), 0),
        ]
        assert [count_operations(run) for run, _ in runs] == [expected for _, expected in runs]


def test_a_backward_pass_counts_twice_the_forward_pass() -> None:
    linear, rows = nn.Linear(16, 5), torch.randn(7, 16, requires_grad=True)
    assert count_operations(lambda: linear(rows).sum().backward()) == 3 * 7 * 16 * 5


def test_counting_changes_no_result() -> None:
    linear, rows, seen = nn.Linear(16, 5), torch.randn(7, 16), []
    count_operations(lambda: seen.append(linear(rows)))
    assert torch.equal(seen[0], linear(rows))


def test_parameters_are_counted_once() -> None:
    first, second = nn.Linear(4, 3), nn.BatchNorm2d(6)
    second.requires_grad_(False)
    shared = nn.Linear(4, 3)
    shared.weight = first.weight
    assert count_parameters(first) == 15
    assert count_parameters(first, second, first, shared) == 15 + 12 + 3
    assert count_parameters() == 0


def test_norms_and_resizing_as_published() -> None:
    with torch.device("meta"), torch.no_grad():
        maps = torch.zeros(2, 8, 16, 10)
        count = maps.numel()
        norms = nn.BatchNorm2d(8).eval(), nn.GroupNorm(1, 8), nn.LayerNorm(10)
        costs = [count_operations_as_published(partial(norm, maps)) for norm in norms]
        assert costs == [2 * count, 5 * count, 5 * count]
        assert count_operations_as_published(lambda: F.interpolate(maps, scale_factor=2, mode="bilinear")) == 16 * count
        assert count_operations_as_published(lambda: F.interpolate(maps, size=(8, 5))) == count // 4
        up = nn.ConvTranspose2d(8, 12, 2, stride=2)
        assert count_operations_as_published(lambda: up(maps)) == 4 * count_operations(lambda: up(maps))


# DenseCLIP and its baseline as its code builds them: what follows is shape alone, on the meta device.


class Step(nn.Sequential):
    def __init__(self, doubled: bool) -> None:
        up = [nn.Upsample(scale_factor=2, mode="bilinear")] if doubled else []
        super().__init__(nn.Conv2d(256, 256, 3, padding=1, bias=False), nn.BatchNorm2d(256), nn.ReLU(), *up)


class SemanticFpn(nn.Module):
    """Feature pyramid, one branch a level, sum, 1 x 1 convolution, and resizing to the image."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.neck = FeaturePyramidNetwork(widths, 256)
        self.branches = nn.ModuleList(
            nn.Sequential(*(Step(level > 0) for _ in range(max(1, level)))) for level in range(4)
        )
        self.out = nn.Conv2d(256, WORDS, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        levels = self.neck(OrderedDict(zip("0123", maps, strict=True)))
        size = levels["0"].shape[-2:]
        total = torch.zeros_like(levels["0"])
        for index, (level, branch) in enumerate(zip(levels.values(), self.branches, strict=True)):
            part = branch(level)
            total = total + (F.interpolate(part, size=size, mode="bilinear") if index else part)
        return F.interpolate(self.out(total), scale_factor=4, mode="bilinear")


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(nn.Linear(256, 256, bias=False) for _ in range(3))
        self.out = nn.Linear(256, 256)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        parts = [
            part(tokens).unflatten(-1, (4, 64)).transpose(1, 2)
            for part, tokens in zip(self.inputs, (queries, memory, memory), strict=True)
        ]
        out: Tensor = self.out(F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2))
        return out


class Layer(nn.Module):
    """Words to words, words to the picture, an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(256) for _ in range(3))
        self.own, self.cross = Attention(), Attention()
        self.mlp = nn.Sequential(nn.Linear(256, 1024), nn.GELU(), nn.Linear(1024, 256))

    def forward(self, words: Tensor, memory: Tensor) -> Tensor:
        normed = self.norm1(words)
        words = words + self.own(normed, normed)
        words = words + self.cross(self.norm2(words), memory)
        return words + self.mlp(self.norm3(words))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.memory = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 256), nn.LayerNorm(256))
        self.words = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 256))
        self.out = nn.Sequential(nn.LayerNorm(256), nn.Linear(256, dim))
        self.layers = nn.ModuleList(Layer() for _ in range(3))

    def forward(self, words: Tensor, memory: Tensor) -> Tensor:
        words, memory = self.words(words), self.memory(memory)
        for layer in self.layers:
            words = layer(words, memory)
        out: Tensor = self.out(words)
        return out


class VitTaps(nn.Module):
    """The pyramid of DenseCLIP's ViT."""

    def __init__(self, width: int = 768) -> None:
        super().__init__()
        up = [nn.ConvTranspose2d(width, width, 2, 2) for _ in range(3)]
        self.spread = nn.ModuleList(
            [
                nn.Sequential(nn.GroupNorm(1, width), up[0], nn.BatchNorm2d(width), nn.GELU(), up[1]),
                nn.Sequential(nn.GroupNorm(1, width), up[2]),
                nn.GroupNorm(1, width),
                nn.Sequential(nn.GroupNorm(1, width), nn.MaxPool2d(2)),
            ]
        )

    def forward(self, maps: Tensor) -> list[Tensor]:
        return [part(maps) for part in self.spread]


def with_words(levels: list[Tensor], at: int, pooled: Tensor, dense: Tensor, dim: int) -> list[Tensor]:
    words = torch.zeros(len(dense), WORDS, dim)
    memory = torch.cat([pooled[:, None], dense.flatten(2).mT], dim=1)
    words = words + Decoder(dim)(words, memory)
    scores = torch.einsum("bchw,bkc->bkhw", dense, words)
    return [torch.cat([level, scores], dim=1) if index == at else level for index, level in enumerate(levels)]


def resnet_run(layers: list[int], dim: int, dense: bool) -> None:
    tower = ModifiedResNet(layers, dim, heads=32, image_size=1024).eval()
    levels = [tower.stem(torch.zeros(1, 3, 1024, 1024))]
    for stage in (tower.layer1, tower.layer2, tower.layer3, tower.layer4):
        levels.append(stage(levels[-1]))
    levels = levels[1:]
    if dense:
        pooled, cells = pool_every_query(tower.attnpool, levels[-1], tower.attnpool.positional_embedding)
        levels = with_words(levels, 3, pooled, cells, dim)
    SemanticFpn([level.shape[1] for level in levels]).eval()(levels)


def vit_run(dense: bool) -> None:
    tower = VisionTransformer(1024, 16, 768, 12, 12, 4.0, output_dim=512).eval()
    tower(torch.zeros(1, 3, 1024, 1024))
    levels = VitTaps().eval()(torch.zeros(1, 768, 64, 64))
    if dense:
        tokens = torch.zeros(1, 64 * 64, 768) @ tower.proj
        levels = with_words(levels, 2, tokens[:, 0], tokens.mT.unflatten(2, (64, 64)), 512)
    SemanticFpn([level.shape[1] for level in levels]).eval()(levels)


RN50, RN101 = [3, 4, 6, 3], [3, 4, 23, 3]
TABLE = {
    "RN50": (lambda: resnet_run(RN50, 1024, dense=False), 248.8, 247.2),
    "RN50 DenseCLIP": (lambda: resnet_run(RN50, 1024, dense=True), 269.8, 268.1),  # the table has 269.2
    "RN101": (lambda: resnet_run(RN101, 512, dense=False), 326.6, 324.7),
    "RN101 DenseCLIP": (lambda: resnet_run(RN101, 512, dense=True), 346.3, 344.4),
    "ViT-B": (lambda: vit_run(dense=False), 1037.4, 861.8),
    "ViT-B DenseCLIP": (lambda: vit_run(dense=True), 1043.1, 867.5),
}


@pytest.mark.parametrize("row", TABLE)
@torch.no_grad()
def test_the_published_table(row: str) -> None:
    """1024 x 1024 pixels, 150 classes, no text tower; then what is really computed."""
    run, published, computed = TABLE[row]
    with torch.device("meta"):
        assert round(count_operations_as_published(run) / 1e9, 1) == published
        assert round(count_operations(run) / 1e9, 1) == computed
