"""Local window attention: every cell attends to the cells of its own window and to the prefix tokens alone."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from closeup.errors import InputError
from closeup.models.attention import attend
from closeup.models.routes import Block, Grid, Heads, Tokens

Window: TypeAlias = int | Literal["native"]
"""Cells along each side of a window; ``native`` is the grid that the tower was trained on."""

Windows: TypeAlias = Shaped[Tensor, "windows heads window_tokens channels"]
"""Tokens by window, the prefix tokens first in each; the windows of the first image first."""


class Stretch(NamedTuple):
    """A part of one side of a map, cut into pieces of equal ``length``."""

    start: int
    pieces: int
    length: int

    @property
    def stop(self) -> int:
        """The cell after the last."""
        return self.start + self.pieces * self.length


class WindowedBlock(Block):
    """A transformer block whose attention stays inside windows; all else of it works token by token, as it was.

    The map is cut into windows that do not overlap, from its top left corner. Where a side is not a whole number
    of windows, those at the right and the lower rim are smaller: what would pad them is never computed, so it
    cannot be attended to. Positions are those of the whole map, as for attention without windows: a position
    embedding is added before the blocks, and queries and keys are rotated (RoPE) before they are cut.

    A prefix token (class token, registers) attends once in every window, with the same query, key and value, and
    what its copies find is averaged, each cell counting the same. So each copy has as many tokens before it as the
    tower was trained with, if the window is the native one; the token stays a single one, as it was trained; and
    through it windows know of each other from the second block on. One window as large as the map is the block
    itself.

    Source: ViTDet (arXiv 2203.16527), the section on adapting a plain backbone, has non-overlapping windows of the
    pre-training grid, and no class token. CLIPSelf (arXiv 2310.01403) compares itself with window attention in its
    Table 7; that code was not published, so what it did with the class token and the rim is not known. ViTDet leaves
    some blocks global or puts convolutions between, both to be fine-tuned; here no block is, which needs no training.
    """

    def __init__(self, block: Block, window: Grid) -> None:
        self.block = block
        self.prefix = block.prefix
        self.grid = block.grid
        self.window = window

    def queries_keys_values(self, x: Tokens) -> tuple[Heads, Heads, Heads]:
        """Return those of the block, of all tokens."""
        return self.block.queries_keys_values(x)

    def values(self, x: Tokens) -> Tokens:
        """Return those of the block, of all tokens."""
        return self.block.values(x)

    def project(self, joined: Tokens) -> Tokens:
        """Do what the block does."""
        return self.block.project(joined)

    def feed_forward(self, x: Tokens) -> Tokens:
        """Do what the block does."""
        return self.block.feed_forward(x)

    def attend(
        self, queries: Heads, keys: Heads, values: Heads, bias: Float[Tensor, "tokens tokens"] | None = None
    ) -> Tokens:
        """Return attention inside each window, heads joined; ``bias`` is of the whole map, as without windows."""
        prefix = torch.zeros((), dtype=values.dtype, device=values.device)
        bands = []
        for rows in _stretches(self.grid[0], self.window[0]):
            band = []
            for cols in _stretches(self.grid[1], self.window[1]):
                copies, cells = self._attend(queries, keys, values, bias, rows, cols)
                share = (rows.stop - rows.start) * (cols.stop - cols.start) / (self.grid[0] * self.grid[1])
                prefix = prefix + share * copies.mean(dim=1)
                band.append(cells)
            bands.append(torch.cat(band, dim=2))
        return torch.cat([prefix, torch.cat(bands, dim=1).flatten(1, 2)], dim=1)

    def _attend(
        self, queries: Heads, keys: Heads, values: Heads, bias: Tensor | None, rows: Stretch, cols: Stretch
    ) -> tuple[Float[Tensor, "batch windows prefix embed"], Float[Tensor, "batch rows cols embed"]]:
        """Attend in the equal windows of one part of the map, all at once."""
        mask = None if bias is None else self._bias(bias.to(queries), rows, cols).repeat(len(queries), 1, 1, 1)
        inside_queries, inside_keys, inside_values = (self._split(x, rows, cols) for x in (queries, keys, values))
        attended = attend(inside_queries, inside_keys, inside_values, mask)
        joined = attended.transpose(1, 2).flatten(2).unflatten(0, (len(queries), -1))
        cells = joined[:, :, self.prefix :].unflatten(2, (rows.length, cols.length))
        cells = cells.unflatten(1, (rows.pieces, cols.pieces)).transpose(2, 3)
        return joined[:, :, : self.prefix], cells.flatten(3, 4).flatten(1, 2)

    def _split(self, tokens: Shaped[Tensor, "batch heads tokens channels"], rows: Stretch, cols: Stretch) -> Windows:
        prefix, cells = tokens[:, :, : self.prefix], tokens[:, :, self.prefix :].unflatten(2, self.grid)
        cells = cells[:, :, rows.start : rows.stop, cols.start : cols.stop]
        cells = cells.unflatten(3, (cols.pieces, cols.length)).unflatten(2, (rows.pieces, rows.length))
        cells = cells.permute(0, 2, 4, 1, 3, 5, 6).flatten(4, 5).flatten(1, 2)
        copies = prefix[:, None].expand(-1, cells.shape[1], -1, -1, -1)
        return torch.cat([copies, cells], dim=3).flatten(0, 1)

    def _bias(
        self, bias: Float[Tensor, "tokens tokens"], rows: Stretch, cols: Stretch
    ) -> Float[Tensor, "windows 1 _ _"]:
        places = torch.arange(len(bias), device=bias.device)[None, None, :, None]
        inside = self._split(places, rows, cols)[:, 0, :, 0]
        return bias[inside[:, :, None], inside[:, None]][:, None]


def window_grid(window: object, native: Grid) -> Grid:
    """Return the rows and columns of a window, for a tower of that native grid; InputError for what is no window."""
    if window == "native":
        return native
    if not isinstance(window, int) or isinstance(window, bool) or window < 1:
        raise InputError(f"The window is {window!r}. Give the number of cells along a side, at least 1, or 'native'.")
    return window, window


def _stretches(length: int, window: int) -> list[Stretch]:
    """Cut a side into whole windows and what is left over."""
    count, rest = divmod(length, window)
    whole, left = Stretch(0, count, window), Stretch(length - rest, 1, rest)
    return [stretch for stretch in (whole, left) if stretch.stop > stretch.start]
