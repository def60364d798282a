"""Which regions a published evaluation counts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from closeup._types import Boxes
from closeup.geometry import areas


@dataclass(frozen=True, slots=True)
class RegionProtocol:
    """A rule for the regions of one image; areas are width times height of the box in original pixels.

    ``crop_things`` and ``crop_stuff`` enlarge a box about its centre where the cut-out is encoded
    instead of the dense map; the dense map is always pooled in the box as it is.
    """

    min_area: float = 0.0
    max_area: float = float("inf")
    max_regions: int | None = None
    crop_things: float = 1.0
    crop_stuff: float = 1.0

    def select(self, boxes: Boxes) -> Int[Tensor, " kept"]:
        """Return the indices of the regions that count, in order: the first ``max_regions`` of a fit size."""
        size = areas(boxes)
        fit = (size >= self.min_area) & (size <= self.max_area)
        return torch.nonzero(fit).flatten()[: self.max_regions]


CLIPSELF = RegionProtocol(min_area=8.0**2, max_area=1024.0**2, max_regions=100, crop_things=1.5)
"""Table 2 of CLIPSelf (arXiv 2310.01403; ``COCOPanopticDataset`` in the official ``data.py``).

Box of a thing: the annotation's; of stuff: the tight box of its mask, which the official ``mask2box``
ends one pixel early while ``geometry.masks_to_boxes`` does not.
"""
