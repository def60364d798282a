"""ODISE's mask tokens: copies of the class token, one a mask, each of which sees the patches of its mask alone.

    t_k      starts as the class token does, at the input of the first block
    t_k      attends to the class token, to registers where there are some, and to the patches that mask k touches
    others   attend to no t_k: class token and patches are those of the picture without any mask

So one pass over a picture serves any number of masks, no mask changes what another gives, a mask of all patches gives
the embedding of the whole picture, and a mask that touches no patch what the class token says of the others.

Source: Xu et al., ODISE, CVPR 2023 (arXiv 2303.04803), ``NVlabs/ODISE`` ``odise/modeling/meta_arch/clip.py``; the idea
is MaskCLIP's for panoptic segmentation (Ding et al., arXiv 2208.08984).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from closeup._types import Images
from closeup.errors import InputError, ModelError
from closeup.models.token_tower import TokenTower
from closeup.models.tower import ImageTower

Touched: TypeAlias = Sequence[Bool[Tensor, "_ cells"]]
"""One entry an image: which cells each of its masks touches, row by row."""


def encode_mask_tokens(tower: ImageTower, images: Images, kept: Touched) -> list[Float[Tensor, "_ dim"]]:
    """Return the joint-space embedding of every mask of every image, not normalised.

    Raises:
        ModelError: a tower that is not made of tokens, or whose embedding is not that of its class token.
        InputError: not one entry an image, or cells that are not the tower's.
    """
    tower = _class_tower(tower)
    grid = tower.grid(images)
    _check(images, kept, grid)
    counts = [len(rows) for rows in kept]
    most = max(counts, default=0)
    if not most:
        return [images.new_zeros(0, tower.dim) for _ in kept]
    touched = pad_sequence([rows.to(images.device) for rows in kept], batch_first=True)
    sight = torch.cat([touched.new_ones(len(images), most, tower.prefix), touched], dim=2)[:, None]
    tokens = tower.embed(images)
    both = torch.cat([tokens[:, :1].expand(-1, most, -1), tokens], dim=1)
    for index in range(tower.depth):
        both = _run(tower, index, grid, both, sight)
    return [rows[:count] for rows, count in zip(tower.project(both), counts, strict=True)]


def _run(tower: TokenTower, index: int, grid: tuple[int, int], both: Tensor, sight: Tensor) -> Tensor:
    """Return a block's output: mask tokens and then the others, of the last block the mask tokens alone."""
    count, block = sight.shape[2], tower.block(index, grid)
    block.prefix += count  # for rotary positions, which mask tokens have none of
    queries, keys, values = block.queries_keys_values(both)
    keys, values = keys[:, :, count:], values[:, :, count:]
    joined = F.scaled_dot_product_attention(queries[:, :, :count], keys, values, attn_mask=sight)
    joined = joined.transpose(1, 2).flatten(2)
    if index + 1 < tower.depth:
        joined = torch.cat([joined, block.attend(queries[:, :, count:], keys, values)], dim=1)
    both = both[:, : joined.shape[1]] + block.project(joined)
    return both + block.feed_forward(both)


def _class_tower(tower: ImageTower) -> TokenTower:
    if isinstance(tower, TokenTower) and tower.pools_class_token:
        return tower
    raise ModelError(
        f"Mask tokens are copies of a class token that the image embedding is read off; this {tower.family} tower has "
        "none. Choose another region encoder, such as dense."
    )


def _check(images: Images, kept: Touched, grid: tuple[int, int]) -> None:
    if len(kept) != len(images):
        raise InputError(f"Masks of {len(kept)} images for {len(images)} images: give one entry an image.")
    for index, rows in enumerate(kept):
        if rows.shape[1] != grid[0] * grid[1]:
            raise InputError(
                f"The masks of image {index} are on {rows.shape[1]} cells, and the image has {grid[0]} x {grid[1]}."
            )
