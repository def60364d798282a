"""The masks of a picture that may become segments: a proposer's, in the parts that hang together, and what is left."""

from __future__ import annotations

from typing import NamedTuple

import PIL.Image
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from closeup._types import IGNORE, Masks
from closeup.heads.mask_proposer import MaskProposer
from closeup.match.panoptic_merge import Window
from closeup.predict.segment_masks import LIMIT, gaps_between, outlined
from closeup.regions.parts import connected_parts
from closeup.text import TextBank

SOLID = 0.5
"""The probability above which a pixel is part of a mask."""
BUDGET = 2**26
"""Pixels of all masks together: above it they stay at the size of the proposer's canvas."""


class Parts(NamedTuple):
    """Which pixels each part has, the mask it is from, IGNORE (-1) for a gap, of which are last; masks and words.

    They are on the picture's pixels, or on fewer. ``words`` is the proposer's table of its masks, no object last.
    """

    planes: Masks
    owner: Int[Tensor, " parts"]
    soft: Float[Tensor, "masks height width"]
    words: Float[Tensor, "masks columns"]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the planes."""
        return self.planes.shape[1], self.planes.shape[2]

    @property
    def gaps(self) -> int:
        """How many parts are gaps."""
        return int((self.owner == IGNORE).sum())

    def loud(self, row: int, window: Window) -> Float[Tensor, "_ _"]:
        """Return how sure each pixel of a part is inside a window; of a gap all are."""
        plane, owner = self.planes[row][window], int(self.owner[row])
        return plane.float() if owner == IGNORE else plane * self.soft[owner][window]


def proposed_parts(
    proposer: MaskProposer,
    picture: PIL.Image.Image,
    bank: TextBank,
    *,
    threshold: float,
    connected: bool,
    smallest: float,
    gaps: bool,
) -> Parts:
    """Return what a proposer outlines in a picture, unless it is sure to be no segment whatever else is said of it.

    ``bank`` is of the proposer's own text tower, ``threshold`` the score that a segment must exceed. ``connected``
    parts are parts of their own; ``smallest`` is the share of the picture below which a part is left out. With ``gaps``
    the parts of the picture that no mask claims come last, without the seams between masks.
    """
    canvas, placement = proposer.clip.preprocess(picture, policy="longest-pad-corner", size=proposer.size)
    found = outlined(proposer, canvas[None], placement, bank)
    words = found.words.float().cpu()
    nothing = words.softmax(dim=1)[:, -1]
    # Fusion leaves no object as it is, and no word has more than what is left of it.
    kept = (1 - nothing > nothing) & (1 - nothing > threshold)
    soft = _sized(found.logits.float().cpu()[kept], (picture.height, picture.width)).sigmoid()
    solid = soft > SOLID
    height, width = soft.shape[1:]
    least = max(1, round(smallest * height * width))
    if connected:
        planes, owner = connected_parts(solid, smallest=least, limit=LIMIT)
    else:
        owner = (solid.flatten(1).sum(dim=1) >= least).nonzero().flatten()
        planes = solid[owner]
    if gaps:
        rest = gaps_between(solid, smallest)
        planes, owner = torch.cat([planes, rest]), torch.cat([owner, owner.new_full((len(rest),), IGNORE)])
    return Parts(planes, owner, soft, words[kept])


def _sized(logits: Float[Tensor, "masks height width"], size: tuple[int, int]) -> Float[Tensor, "masks _ _"]:
    """Return masks at the size of the picture, if that is not too much."""
    if not len(logits) or len(logits) * size[0] * size[1] > BUDGET:
        return logits
    return F.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0]
