"""CAT-Seg's aggregator: a volume of cosines between places and words becomes a logit for every word at every pixel.

    C      = cos(map, word)                           one plane per word
    layers   windows of places, then words, twice     ``cost_attention``
    decoder  twice as large, twice, with the guidance of earlier blocks

What a word scores depends on the other words: that is what attention among words is for.

Source: Cho et al., CAT-Seg, CVPR 2024 (arXiv 2303.11797); ``KU-CVLAB/CAT-Seg``
``cat_seg/modeling/transformer/model.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from closeup._types import DenseMap
from closeup.config import Config
from closeup.errors import ConfigError
from closeup.heads.cost_attention import ClassBlock, WindowBlock

DROPPED = -100.0
"""The logit of words that are not looked at, where there are more than can be."""

GROUP = 16
"""Channels that a decoder's group norm takes together."""

Words = Float[Tensor, "batch words prompts dim"]


@dataclass(frozen=True)
class AggregatorConfig(Config):
    """The widths of an aggregator; defaults are those of CAT-Seg with ViT-B/16.

    Raises:
        ConfigError: a value outside its range.
    """

    hidden: int = 128
    """Channels of each word's vector at each place."""
    heads: int = 4
    layers: int = 2
    window: int = 12
    """Places along a window's side."""
    appearance: int = 128
    """Channels of the guide of places."""
    meaning: int = 128
    """Channels of the guide of words."""
    decoder: tuple[int, int] = (64, 32)
    """Channels after each doubling."""
    guidance: tuple[int, int] = (32, 16)
    """Channels of the guidance at each doubling."""
    prompts: int = 1
    """Sentences around a word, each with a plane of its own in the volume."""
    padding: int = 256
    """The most words that are looked at in a picture; fewer are filled up with a learned token."""

    def __post_init__(self) -> None:
        counts = (self.hidden, self.heads, self.layers, self.window, self.appearance, self.meaning, self.prompts)
        if min(*counts, *self.decoder, *self.guidance, self.padding) < 1:
            raise ConfigError(f"Every width and count must be at least 1, but got {self.to_dict()}.")
        if self.hidden % self.heads:
            raise ConfigError(f"`heads` ({self.heads}) must divide `hidden` ({self.hidden}).")
        if self.hidden <= self.guidance[0] or self.decoder[0] <= self.guidance[1]:
            raise ConfigError(
                f"`guidance` {self.guidance} must be below {(self.hidden, self.decoder[0])}, what it joins."
            )


class AggregatorLayer(nn.Module):
    """Two window blocks, the second shifted by half a window, then attention among words."""

    def __init__(self, config: AggregatorConfig) -> None:
        super().__init__()
        self.guide_norm = nn.LayerNorm(config.appearance)
        self.windows = nn.ModuleList(
            WindowBlock(config.hidden, config.appearance, heads=config.heads, window=config.window, shift=shift)
            for shift in (0, config.window // 2)
        )
        self.words = ClassBlock(config.hidden, config.meaning, heads=config.heads, padding=config.padding)

    def forward(
        self,
        volume: Float[Tensor, "batch words rows cols channels"],
        places: Float[Tensor, "batch rows cols appearance"],
        words: Float[Tensor, "batch words meaning"],
        pool: int,
    ) -> Float[Tensor, "batch words rows cols channels"]:
        """Return the volume, each word's places and each place's words having seen each other."""
        count = volume.shape[1]
        maps, guide = volume.flatten(0, 1), self.guide_norm(places).repeat_interleave(count, dim=0)
        for block in self.windows:
            maps = block(maps, guide)
        mixed: Tensor = self.words(maps.unflatten(0, (-1, count)), words, pool)
        return mixed


class Doubling(nn.Module):
    """Twice the rows and columns, then guidance joined in and two convolutions."""

    def __init__(self, channels: int, out: int, guidance: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(channels, channels - guidance, 2, stride=2)
        self.convolutions = nn.Sequential(*_convolution(channels, out), *_convolution(out, out))

    def forward(
        self, maps: Float[Tensor, "slices _ rows cols"], guidance: Float[Tensor, "slices _ lines columns"]
    ) -> Float[Tensor, "slices _ lines columns"]:
        """Return the maps at twice the size; ``guidance`` is of that size already."""
        larger: Tensor = self.convolutions(torch.cat([self.up(maps), guidance], dim=1))
        return larger


class Aggregator(nn.Module):
    """From a dense map and words to logits at four times the map's rows and columns.

    ``dim`` is that of the joint space, ``guides`` the channels of the three guidance maps. Logits are meant for a
    sigmoid each, not for a softmax.
    """

    def __init__(self, dim: int, guides: tuple[int, int, int], config: AggregatorConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AggregatorConfig()
        self.embed = nn.Conv2d(config.prompts, config.hidden, 7, padding=3)
        self.places = nn.Sequential(nn.Conv2d(guides[0], config.appearance, 3, padding=1), nn.ReLU())
        self.words = nn.Sequential(nn.Linear(dim, config.meaning), nn.ReLU())
        self.guides = nn.ModuleList(
            nn.Sequential(nn.Conv2d(given, width, 3, padding=1), nn.ReLU())
            for given, width in zip(guides[1:], config.guidance, strict=True)
        )
        self.layers = nn.ModuleList(AggregatorLayer(config) for _ in range(config.layers))
        widths = (config.hidden, *config.decoder)
        self.decoder = nn.ModuleList(
            Doubling(widths[index], widths[index + 1], config.guidance[index]) for index in range(2)
        )
        self.head = nn.Conv2d(config.decoder[1], 1, 3, padding=1)

    def forward(
        self, maps: DenseMap, words: Words, guidance: Sequence[Float[Tensor, "batch _ _ _"]], *, pool: int = 1
    ) -> Float[Tensor, "batch words lines columns"]:
        """Return a logit for every word; ``DROPPED`` for all but the most likely ones where there are too many.

        Args:
            maps: Joint-space maps.
            words: Joint-space embeddings, normalised, every sentence of a word apart.
            guidance: What the image shows, at once, twice and four times the rows and columns of ``maps``; the first
                is the dense map itself officially, the others come from earlier blocks.
            pool: Side of the places that words are compared over; 2 in training, 1 in evaluation officially.
        """
        volume = torch.einsum("bchw,btpc->btphw", F.normalize(maps, dim=1), F.normalize(words, dim=3))
        chosen = self._chosen(volume)
        if chosen is None:
            return self._logits(volume, words, guidance, pool)
        at = torch.arange(len(volume), device=volume.device)[:, None]
        some = self._logits(volume[at, chosen], words[at, chosen], guidance, pool)
        logits = some.new_full((len(some), volume.shape[1], *some.shape[2:]), DROPPED)
        logits[at, chosen] = some
        return logits

    def _chosen(self, volume: Float[Tensor, "batch words prompts rows cols"]) -> Int[Tensor, "batch kept"] | None:
        """Return the words that are looked at, the most likely ones of each picture; None for all."""
        if volume.shape[1] <= self.config.padding:
            return None
        likely = volume.mean(dim=2).flatten(2).amax(dim=2)
        chosen: Tensor = likely.topk(self.config.padding, dim=1).indices.sort(dim=1).values
        return chosen

    def _logits(
        self,
        volume: Float[Tensor, "batch words prompts rows cols"],
        words: Words,
        guidance: Sequence[Float[Tensor, "batch _ _ _"]],
        pool: int,
    ) -> Float[Tensor, "batch words lines columns"]:
        count = volume.shape[1]
        costs = self.embed(volume.flatten(0, 1)).unflatten(0, (-1, count)).movedim(2, 4)
        places = self.places(guidance[0]).movedim(1, 3)
        meaning = self.words(F.normalize(words.mean(dim=2), dim=2))
        for layer in self.layers:
            costs = layer(costs, places, meaning, pool)
        planes = costs.movedim(4, 2).flatten(0, 1)
        for doubling, project, guide in zip(self.decoder, self.guides, guidance[1:], strict=True):
            planes = doubling(planes, project(guide).repeat_interleave(count, dim=0))
        logits: Tensor = self.head(planes)[:, 0].unflatten(0, (-1, count))
        return logits


def _convolution(channels: int, out: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.GroupNorm(max(out // GROUP, 1), out), nn.ReLU()
