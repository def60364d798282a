"""Towers made of transformer blocks: what is the same for all of them, once the family has named its parts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from closeup._types import DenseMap, Embeddings, Images
from closeup.errors import InputError
from closeup.models.reading import Reading
from closeup.models.routes import AttentionRoute, Block, Grid, Route, Tokens
from closeup.models.tower import ImageTower
from closeup.models.windows import Window, WindowedBlock, window_grid

ATTENTION = AttentionRoute()

Patches: TypeAlias = Float[Tensor, "batch patches embed"]
"""Tokens of patches alone."""

JointTokens: TypeAlias = Float[Tensor, "batch tokens dim"]
"""Tokens after the projection, in the joint space."""


class TokenTower(ImageTower):
    """A tower whose layers are tokens in, tokens out; the last block is left to the route.

    Blocks 1..L-1 run as they were trained. The last one is run by the route alone, so that no
    attention is computed and thrown away.
    """

    prefix: int
    """Number of tokens before the patches."""

    @abstractmethod
    def patches(self, images: Images) -> Patches:
        """Return one token per patch, before prefix tokens and positions; in the dtype of the weights."""

    @abstractmethod
    def assemble(self, patches: Patches, grid: Grid) -> Tokens:
        """Return the input of the first block: prefix tokens and patches with their positions."""

    def embed(self, images: Images) -> Tokens:
        """Return the input of the first block of images."""
        return self.assemble(self.patches(images), self.grid(images))

    @abstractmethod
    def run_block(self, index: int, tokens: Tokens, grid: Grid) -> Tokens:
        """Return the ordinary output of block ``index`` (0-based)."""

    @abstractmethod
    def block(self, index: int, grid: Grid) -> Block:
        """Return block ``index`` (0-based, negative from the end) taken apart."""

    @abstractmethod
    def pool(self, tokens: Tokens) -> Embeddings:
        """Pool and project the last block's tokens as the family does for a whole image."""

    @abstractmethod
    def project(self, tokens: Tokens) -> JointTokens:
        """Bring each of the last block's tokens into the joint space, on its own."""

    @property
    @abstractmethod
    def pools_class_token(self) -> bool:
        """Whether the embedding of an image is its class token, projected as ``project`` does."""

    @property
    def checkpointing(self) -> bool:
        """Whether open_clip's gradient checkpointing is switched on for this tower."""
        return False

    def last_block(self, grid: Grid) -> Block:
        """Return the last block taken apart, for a route."""
        return self.block(-1, grid)

    def pooled(self, images: Images) -> Embeddings:
        """Return open_clip's ``encode_image`` at any size, patches not projected."""
        grid = self.grid(images)
        tokens = self.tokens(images)
        return self.pool(self.run(self.depth - 1, tokens, grid))

    def dense(self, images: Images, route: Route, window: Window | None = None) -> DenseMap:
        """Return the joint-space map, one vector per patch; attention stays inside windows where there is one."""
        grid = self.grid(images)
        inside = None if window is None else window_grid(window, self.native_grid)
        last = self.last_block(grid)
        tokens = route(last if inside is None else WindowedBlock(last, inside), self.tokens(images, inside))
        return as_map(self.project(tokens[:, self.prefix :]), grid)

    def dense_and_keys(self, images: Images, route: Route) -> tuple[DenseMap, Float[Tensor, "batch keys rows cols"]]:
        """Return the joint-space map, and the last block's keys after its output projection (MaskCLIP's way)."""
        grid = self.grid(images)
        tokens, last = self.tokens(images), self.last_block(grid)
        _, keys, _ = last.queries_keys_values(tokens)
        projected = last.project(keys.transpose(1, 2).flatten(2))[:, self.prefix :]
        return as_map(self.project(route(last, tokens)[:, self.prefix :]), grid), as_map(projected, grid)

    def pooled_and_dense(self, images: Images, route: Route) -> tuple[Embeddings, DenseMap]:
        """Return the pooled embedding of the routed last block, and the map, from one pass."""
        tokens = route(self.last_block(self.grid(images)), self.tokens(images))
        return self.pool(tokens), as_map(self.project(tokens[:, self.prefix :]), self.grid(images))

    def features(self, images: Images, blocks: Sequence[int]) -> list[Float[Tensor, "batch channels rows cols"]]:
        """Return the patch tokens after the given blocks (0-based) as maps, before any norm or projection.

        The last block runs as it was trained. Raise InputError for a block that the tower has not.
        """
        wanted = [check_block(block, self.depth) for block in blocks]
        grid = self.grid(images)
        tokens = self.embed(images)
        outputs: dict[int, Tensor] = {}
        for index in range(max(wanted, default=-1) + 1):
            tokens = self.run(index, tokens, grid)
            if index in wanted:
                outputs[index] = as_map(tokens[:, self.prefix :], grid)
        return [outputs[index] for index in wanted]

    def features_and_dense(
        self, images: Images, blocks: Sequence[int], route: Route
    ) -> tuple[list[Float[Tensor, "batch channels rows cols"]], DenseMap]:
        """Return the patch tokens after the given blocks as maps, and the joint-space map, from one pass.

        Unlike in ``features``, the last block's are as the route leaves them: what the dense map is projected from.
        """
        levels, last = self._routed(images, blocks, route)
        return levels, as_map(self.project(last[:, self.prefix :]), self.grid(images))

    def read(self, images: Images, blocks: Sequence[int], route: Route) -> Reading:
        """Return the patch tokens after the given blocks as maps, pooled embedding and map, from one pass.

        The last block's are as the route leaves them.
        """
        levels, last = self._routed(images, blocks, route)
        return Reading(levels, self.pool(last), as_map(self.project(last[:, self.prefix :]), self.grid(images)))

    def _routed(
        self, images: Images, blocks: Sequence[int], route: Route
    ) -> tuple[list[Float[Tensor, "batch channels rows cols"]], Tokens]:
        """Return the patch tokens after the given blocks as maps, and all tokens as the route leaves them."""
        wanted = [check_block(block, self.depth) for block in blocks]
        grid = self.grid(images)
        tokens = self.embed(images)
        outputs: dict[int, Tensor] = {}
        for index in range(self.depth - 1):
            tokens = self.run(index, tokens, grid)
            if index in wanted:
                outputs[index] = as_map(tokens[:, self.prefix :], grid)
        last = route(self.last_block(grid), tokens)
        outputs[self.depth - 1] = as_map(last[:, self.prefix :], grid)
        return [outputs[index] for index in wanted], last

    def tokens(self, images: Images, window: Grid | None = None) -> Tokens:
        """Return the input of the last block; the blocks before it attend in windows of those rows and columns."""
        grid = self.grid(images)
        tokens = self.embed(images)
        for index in range(self.depth - 1):
            tokens = self.run(index, tokens, grid, window)
        return tokens

    def run(self, index: int, tokens: Tokens, grid: Grid, window: Grid | None = None) -> Tokens:
        """Return the output of block ``index``, in windows where there are some; checkpointed where that is on."""
        if self.checkpointing and torch.is_grad_enabled():
            output: Tensor = checkpoint(self._run, index, tokens, grid, window, use_reentrant=False)
            return output
        return self._run(index, tokens, grid, window)

    def _run(self, index: int, tokens: Tokens, grid: Grid, window: Grid | None) -> Tokens:
        if window is None:
            return self.run_block(index, tokens, grid)
        return ATTENTION(WindowedBlock(self.block(index, grid), window), tokens)


def as_map(tokens: Float[Tensor, "batch patches width"], grid: Grid) -> Float[Tensor, "batch width rows cols"]:
    """Lay patch tokens out as a map."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], *grid)


def check_block(block: int, depth: int) -> int:
    """Return the 0-based index of ``block``, which may count from the end; raise InputError if there is none."""
    if not -depth <= block < depth:
        raise InputError(f"Block {block} does not exist: the tower has {depth} blocks, 0 to {depth - 1}.")
    return block % depth
