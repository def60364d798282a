"""Regions of a feature pyramid: each from the level that fits its size, as a grid of K x K."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import roi_align
from torchvision.ops.poolers import LevelMapper

FINEST = 56
"""Side of a box that moves up a level, at a finest stride of 4 pixels: twice as large, one level more."""


class PyramidPooling(nn.Module):
    """RoIAlign over levels of given ``strides``, in pixels, aligned, with adaptive samples.

    A box is read off the finest level up to twice ``FINEST`` pixels a side (at a finest stride of 4, and in proportion
    at others), and each further doubling is a level up. torchvision's own pooler is not aligned, so that regions lie
    half a cell off, and guesses the scales from the first pictures that it sees.

    Source: mmdet's SingleRoIExtractor, as in ``wusize/CLIPSelf`` ``F-ViT/configs``; Feature Pyramid Networks (arXiv
    1612.03144), equation 1.
    """

    def __init__(self, strides: Sequence[float], bins: int) -> None:
        super().__init__()
        self._strides, self._bins = tuple(strides), bins
        self._level = LevelMapper(0, len(strides) - 1, canonical_scale=FINEST / 4 * strides[0], canonical_level=0)

    def forward(
        self, levels: Mapping[str, Tensor], boxes: Sequence[Float[Tensor, "_ 4"]]
    ) -> Float[Tensor, "regions channels bins bins"]:
        """Return the grids of all pictures' boxes (xyxy in pixels), in their order; the first maps are the levels."""
        maps = list(levels.values())[: len(self._strides)]
        owners = torch.arange(len(boxes), device=maps[0].device).repeat_interleave(
            torch.tensor([len(each) for each in boxes], device=maps[0].device)
        )
        rows = torch.cat([owners[:, None].to(maps[0].dtype), torch.cat(list(boxes)).to(maps[0].dtype)], dim=1)
        places: Tensor = self._level(list(boxes))
        grids = maps[0].new_zeros(len(rows), maps[0].shape[1], self._bins, self._bins)
        for level, (features, stride) in enumerate(zip(maps, self._strides, strict=True)):
            chosen = (places == level).nonzero()[:, 0]
            read = roi_align(features, rows[chosen], self._bins, 1 / stride, sampling_ratio=0, aligned=True)
            grids = grids.index_copy(0, chosen, read)
        return grids
