"""A CLIP that also tells what its maps are like inside: mean and deviation of what it sees after some of its blocks.

    z = [ e ;  mean over cells of x_1 ;  deviation over cells of x_1 ;  mean of x_2 ;  ... ]

with ``e`` the embedding and ``x_l`` the map after block ``l``. Details of a surface are there before the last blocks
have made a word of it. Not in the paper of fine-grained matching, whose matchers see ``e`` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from closeup._types import DenseMap, Embeddings, Images
from closeup.errors import InputError, ModelError
from closeup.models.clip import Clip
from closeup.models.routes import Grid, Route, get_route
from closeup.models.token_tower import check_block
from closeup.models.windows import Window

NEIGHBOURS = 5
"""Cells of a dense map along a side of the neighbourhood whose mean and deviation each of its cells has."""


class ClipWithLevels(Clip):
    """Another view of a CLIP, whose image embeddings have ``details`` numbers behind those of the joint space.

    It shares the weights. Where length one is asked for, the part in the joint space has it, and details are left as
    they are. ``dim`` is the width of both together; texts are as they were, and so are the joint-space outputs of
    ``encode_both``, ``read`` and ``features_and_dense``.

    Args:
        clip: The model.
        levels: Blocks (stages) after which its maps are read, from 0; negative ones count from the end.

    Raises:
        InputError: no level, one twice, or one that the tower has not.
    """

    def __init__(self, clip: Clip, levels: Sequence[int]) -> None:
        self.__dict__.update(vars(clip))  # a view: the same model, tower, tokenizer and settings
        self.__dict__.pop("details", None)  # of other levels, where it is a view already
        self.levels = tuple(check_block(level, clip.blocks) for level in levels)
        if not self.levels or len(set(self.levels)) < len(self.levels):
            raise InputError(f"levels is {tuple(levels)}: name one block or more, each once.")

    @cached_property
    def details(self) -> int:
        """How many numbers stand behind those of the joint space: mean and deviation of each channel of each level."""
        with torch.no_grad():
            blank = torch.zeros(1, 3, *self.image_size, device=self.device)
            return 2 * sum(level.shape[1] for level in self.features(blank, self.levels))

    @property
    def dim(self) -> int:
        """Width of an image embedding with its details."""
        return self.joint_dim + self.details

    def encode_image(self, images: Images, *, normalize: bool = False) -> Embeddings:
        """Return the embedding of whole images and, over all their cells, the mean and deviation of each level."""
        with self._cast():
            found = self.tower.read(self._ready(images, native=True), self.levels, get_route("attention"))
        if found.pooled is None:
            raise ModelError(f"The tower of {self.name!r} has no embedding of whole images to put details behind.")
        told = [each for level in found.levels for each in _over_cells(level.float())]
        return torch.cat([_unit(found.pooled.float(), normalize), *told], dim=1)

    def encode_dense(
        self,
        images: Images,
        *,
        route: str | Route = "value",
        window: Window | None = None,
        normalize: bool = True,
    ) -> DenseMap:
        """Return the joint-space map and, around each cell, the mean and deviation of each level; as ``Clip`` does.

        A ViT's last block, if it is a level, is as the route leaves it. InputError for a window.
        """
        if window is not None:
            raise InputError(f"The window {window!r}: what a model is like inside is read without windows. Leave it.")
        found = self.read(images, self.levels, route=route)
        if found.dense is None:
            raise ModelError(f"The tower of {self.name!r} has no map in the joint space to put details behind.")
        grid = (found.dense.shape[2], found.dense.shape[3])
        told = [part for level in found.levels for part in _around(level, grid)]
        return torch.cat([_unit(found.dense, normalize), *told], dim=1)

    def encode_masked(
        self, images: Images, masks: Bool[Tensor, "batch lines columns"], *, normalize: bool = False
    ) -> Embeddings:
        """Raise InputError: mask prompts are not looked at from inside."""
        raise InputError("Details are read from crops and dense maps, not with mask prompts. Choose one of those.")

    def encode_mask_tokens(
        self, images: Images, cells: Sequence[Bool[Tensor, "_ rows cols"]], *, normalize: bool = False
    ) -> list[Float[Tensor, "_ dim"]]:
        """Raise InputError: a mask's class token has no map of its own."""
        raise InputError("Details are read from crops and dense maps, not from mask tokens. Choose one of those.")


def with_levels(clip: Clip, levels: Sequence[int]) -> Clip:
    """Return a view of a CLIP with details of some levels; the CLIP itself where there are none."""
    return ClipWithLevels(clip, levels) if levels else clip


def _over_cells(level: Float[Tensor, "batch channels rows cols"]) -> tuple[Tensor, Tensor]:
    cells = level.flatten(2)
    return cells.mean(dim=2), cells.std(dim=2, correction=0)


def _around(level: Float[Tensor, "batch channels _ _"], grid: Grid) -> tuple[Tensor, Tensor]:
    """Return the mean and deviation over the neighbourhood of each cell of the grid, which a level may be finer than.

    At an edge they are over what there is of the neighbourhood.
    """
    middle = level.mean(dim=(2, 3), keepdim=True)
    off = level - middle  # what is large and hardly changes would drown in its square
    mean, square = (
        F.avg_pool2d(
            F.adaptive_avg_pool2d(part, grid), NEIGHBOURS, stride=1, padding=NEIGHBOURS // 2, count_include_pad=False
        )
        for part in (off, off.square())
    )
    return middle + mean, (square - mean.square()).clamp(min=0).sqrt()


def _unit(embeddings: Tensor, normalize: bool) -> Tensor:
    return F.normalize(embeddings, dim=1) if normalize else embeddings
