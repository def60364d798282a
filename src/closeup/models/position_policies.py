"""How the attention pool's position embedding meets a map of another size; the official codes differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from closeup.errors import InputError, suggest
from closeup.models.pos_embed import crop_position_embedding, resize_position_embedding

PositionPolicy: TypeAlias = Callable[[Tensor, tuple[int, int]], Tensor]
"""From a stored embedding and ``(rows, cols)`` to the embedding of that grid, class row first in both."""

POSITION_POLICIES = ("resize", "resize-twice", "resize-crop")


def position_policy(name: str, grid: tuple[int, int] | None = None) -> PositionPolicy:
    """Return the policy of that name; ``grid`` = ``(rows, cols)`` is its stop on the way.

    - ``resize``: bilinear, straight to the map's grid; takes no ``grid``.
    - ``resize-twice``: bilinear to ``grid`` (the training image), then bilinear to the map's.
    - ``resize-crop``: bilinear to ``grid`` (the largest image), then the top-left corner of the map's size.

    The class row is kept, and at an equal grid nothing is done. Raise InputError for an unknown name, or a
    ``grid`` that is missing or not wanted. Source: DenseCLIP (arXiv 2112.01518, ``raoyongming/DenseCLIP``):
    ``segmentation/denseclip/models.py`` resizes at load time (512 px: 16 x 16) and again in the forward pass,
    ``detection/denseclip/models.py`` resizes to 42 x 42 and cuts. ``resize`` is ours: it leaves the stored
    weights as they are, so that one model serves every size.
    """
    if name not in POSITION_POLICIES:
        raise InputError(f"Unknown position policy {name!r}. {suggest(name, POSITION_POLICIES)}")
    if (grid is None) != (name == "resize"):
        need = "takes no grid" if name == "resize" else "needs grid=(rows, cols)"
        raise InputError(f"The position policy {name!r} {need}; received grid={grid}.")
    if grid is None:
        return _resize
    return _resize_twice(grid) if name == "resize-twice" else _resize_crop(grid)


def _resize(embedding: Tensor, size: tuple[int, int]) -> Tensor:
    return resize_position_embedding(embedding, size, mode="bilinear")


def _resize_twice(grid: tuple[int, int]) -> PositionPolicy:
    return lambda embedding, size: resize_position_embedding(
        _resize(embedding, grid), size, mode="bilinear", native=grid
    )


def _resize_crop(grid: tuple[int, int]) -> PositionPolicy:
    return lambda embedding, size: crop_position_embedding(_resize(embedding, grid), size, native=grid)
