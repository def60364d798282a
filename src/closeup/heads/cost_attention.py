"""CAT-Seg's two attentions over a cost volume: among the places of one word, and among the words of one place.

A cost volume holds a vector for every word at every place; ``guides`` tell places apart by what the image shows there,
and words by what they say. Queries and keys see the guide, values do not.

Source: Cho et al., CAT-Seg, CVPR 2024 (arXiv 2303.11797), Section 3.3; ``KU-CVLAB/CAT-Seg``
``cat_seg/modeling/transformer/model.py``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from closeup.errors import ConfigError

Slices = Float[Tensor, "slices rows cols channels"]
"""One map per image and word, images first."""

PlaceGuide = Float[Tensor, "slices rows cols guide"]

EPSILON = 1e-6


class WindowBlock(nn.Module):
    """A Swin block over one word's map: attention inside windows, shifted by half a window in every second block.

    Without Swin's table of relative positions. A map that windows do not divide is padded, and no place attends to the
    pad.

    Raises:
        ConfigError: channels that heads do not divide, or a window below 1.
    """

    def __init__(self, channels: int, guide: int, *, heads: int, window: int, shift: int) -> None:
        super().__init__()
        if channels % heads or window < 1:
            raise ConfigError(f"{channels} channels, {heads} heads, windows of {window}: heads must divide channels.")
        self.heads, self.window, self.shift = heads, window, shift
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.query, self.key = nn.Linear(channels + guide, channels), nn.Linear(channels + guide, channels)
        self.value, self.out = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, maps: Slices, guide: PlaceGuide) -> Slices:
        """Return the maps after attention and MLP; ``guide`` has a row for every map."""
        rows, cols = maps.shape[1:3]
        window, shift = min(self.window, max(rows, cols)), self.shift if self.window < max(rows, cols) else 0
        normal = self.norm1(maps)
        seen = torch.cat([normal, guide], dim=3)
        parts = [_windows(part, window, shift) for part in (self.query(seen), self.key(seen), self.value(normal))]
        queries, keys, values = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        mask = None
        if shift or rows % window or cols % window:
            mask = _together(rows, cols, window, shift, maps.device).repeat(len(maps), 1, 1)[:, None]
        attended = _attended(queries, keys, values, mask)
        joined = _joined(attended.transpose(1, 2).flatten(2), window, shift, (len(maps), rows, cols))
        maps = maps + self.out(joined)
        merged: Tensor = maps + self.mlp(self.norm2(maps))
        return merged


class ClassBlock(nn.Module):
    """Linear attention among the words of each place, pooled over ``pool`` by ``pool`` places.

    Fewer than ``padding`` words are filled up with a learned token, as in training on many classes; its key and value
    count as often as it stands there, and are computed once.

    Raises:
        ConfigError: channels that heads do not divide.

    Source of the attention: Katharopoulos et al., ICML 2020 (arXiv 2006.16236), with ``elu(x) + 1``.
    """

    def __init__(self, channels: int, guide: int, *, heads: int, padding: int) -> None:
        super().__init__()
        if channels % heads:
            raise ConfigError(f"{channels} channels, {heads} heads: heads must divide channels.")
        self.heads, self.padding = heads, padding
        self.pad_token = nn.Parameter(torch.zeros(channels))
        self.pad_guide = nn.Parameter(torch.zeros(guide))
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.query, self.key = nn.Linear(channels + guide, channels), nn.Linear(channels + guide, channels)
        self.value = nn.Linear(channels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.ReLU(), nn.Linear(4 * channels, channels))

    def forward(
        self,
        volume: Float[Tensor, "batch words rows cols channels"],
        guide: Float[Tensor, "batch words guide"],
        pool: int = 1,
    ) -> Float[Tensor, "batch words rows cols channels"]:
        """Return the volume plus what words tell each other."""
        batch, words, rows, cols, _ = volume.shape
        maps = volume.flatten(0, 1).movedim(3, 1)
        pool = min(pool, rows, cols)
        pooled = F.avg_pool2d(maps, pool) if pool > 1 else maps
        side = pooled.shape[2:]
        # One row of words for every image and place.
        tokens = pooled.unflatten(0, (batch, words)).permute(0, 3, 4, 1, 2).flatten(0, 2)
        guides = guide.repeat_interleave(side[0] * side[1], dim=0)
        tokens = self._mixed(tokens, guides, max(self.padding - words, 0))
        mixed = tokens.unflatten(0, (batch, *side)).permute(0, 3, 4, 1, 2).flatten(0, 1)
        if pool > 1:
            mixed = F.interpolate(mixed, size=(rows, cols), mode="bilinear", align_corners=True)
        told: Tensor = mixed.movedim(1, 3).unflatten(0, (batch, words))
        return volume + told

    def _mixed(
        self, tokens: Float[Tensor, "places words channels"], guide: Float[Tensor, "places words guide"], pads: int
    ) -> Float[Tensor, "places words channels"]:
        normal = self.norm1(tokens)
        seen = torch.cat([normal, guide], dim=2)
        parts = (F.elu(self.query(seen)) + 1, F.elu(self.key(seen)) + 1, self.value(normal))
        queries, keys, values = (part.unflatten(2, (self.heads, -1)) for part in parts)
        # All pads are alike: one key and one value stand for them. With none they are part of the graph all the same,
        # since data-parallel training would wait for their gradients.
        blank = self.norm1(self.pad_token)
        key = (F.elu(self.key(torch.cat([blank, self.pad_guide]))) + 1).unflatten(0, (self.heads, -1))
        value = self.value(blank).unflatten(0, (self.heads, -1))
        memory = torch.einsum("nshd,nshv->nhdv", keys, values) + pads * torch.einsum("hd,hv->hdv", key, value)
        weight = torch.einsum("nlhd,nhd->nlh", queries, keys.sum(dim=1) + pads * key) + EPSILON
        attended = torch.einsum("nlhd,nhdv->nlhv", queries, memory) / weight[..., None]
        tokens = tokens + attended.flatten(2)
        merged: Tensor = tokens + self.mlp(self.norm2(tokens))
        return merged


def _attended(
    queries: Float[Tensor, "windows heads places channels"],
    keys: Float[Tensor, "windows heads places channels"],
    values: Float[Tensor, "windows heads places channels"],
    together: Bool[Tensor, "windows 1 places places"] | None,
) -> Float[Tensor, "windows heads places channels"]:
    """Return attention inside windows, written out where torch's fused kernel is slow: learning on a CPU.

    For windows of 64 places the backward pass of that kernel takes several times as long as two plain products.
    """
    if queries.device.type != "cpu" or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=together)
    logits = (queries * queries.shape[3] ** -0.5) @ keys.transpose(2, 3)
    weights = (logits if together is None else logits.masked_fill(~together, -torch.inf)).softmax(dim=3)
    attended: Tensor = weights.to(values) @ values
    return attended


def _windows(maps: Slices, window: int, shift: int) -> Float[Tensor, "windows places channels"]:
    """Cut maps into windows, padded below and right, after moving them up and left by ``shift``."""
    rows, cols = maps.shape[1:3]
    maps = F.pad(maps, (0, 0, 0, -cols % window, 0, -rows % window))
    if shift:
        maps = maps.roll((-shift, -shift), dims=(1, 2))
    parts: Tensor = maps.unflatten(2, (-1, window)).unflatten(1, (-1, window)).transpose(2, 3)
    return parts.reshape(-1, window * window, maps.shape[3])


def _joined(
    windows: Float[Tensor, "windows places channels"], window: int, shift: int, shape: tuple[int, int, int]
) -> Slices:
    """Undo ``_windows`` for maps of ``shape``: their number, rows and columns."""
    count, rows, cols = shape
    down, across = -(-rows // window), -(-cols // window)
    parts = windows.reshape(count, down, across, window, window, -1).transpose(2, 3)
    maps = parts.reshape(count, down * window, across * window, -1)
    if shift:
        maps = maps.roll((shift, shift), dims=(1, 2))
    return maps[:, :rows, :cols]


def _together(
    rows: int, cols: int, window: int, shift: int, device: torch.device
) -> Bool[Tensor, "windows places places"]:
    """Return which places of a window may attend to which: those that were together before the shift, and no pad."""
    down, across = -(-rows // window) * window, -(-cols // window) * window
    row, col = (_parts(length, window, shift, device) for length in (down, across))
    parts = row[:, None] * 3 + col[None, :]
    # The roll of `_windows` moves the pad too, to where its places now lie.
    real = torch.zeros(down, across, dtype=torch.bool, device=device)
    real[:rows, :cols] = True
    labels = torch.where(real.roll((-shift, -shift), dims=(0, 1)), parts, -1)
    cut = _windows(labels[None, :, :, None].float(), window, 0)[:, :, 0].long()
    same: Bool[Tensor, "windows places places"] = (cut[:, :, None] == cut[:, None, :]) & (cut[:, None, :] >= 0)
    # A row of pad must attend to something, or it is NaN; nobody reads it.
    return same | (cut < 0)[:, :, None]


def _parts(length: int, window: int, shift: int, device: torch.device) -> Int[Tensor, " length"]:
    """Return of the places along a side, moved by ``shift``, which of three stretches each lies in."""
    places = torch.arange(length, device=device)
    if not shift:
        return torch.zeros_like(places)
    return (places >= length - window).long() + (places >= length - shift).long()
