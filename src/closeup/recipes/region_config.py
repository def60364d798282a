"""What recipes that learn from regions have in common: where regions come from, and how the student sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from closeup.config import Config
from closeup.errors import ConfigError
from closeup.models.windows import Window

Regions: TypeAlias = Literal["patches", "proposals", "masks", "patches-and-proposals", "random"]
"""What is cut out of pictures."""

RegionsFrom: TypeAlias = Literal["auto", "data", "found"]
"""Whose proposals or masks."""

CELLS = 64
"""Cells along each side of the student's map in CLIPSelf: 1024 px with patch 16, 896 px with patch 14."""


@dataclass(frozen=True)
class RegionConfig(Config):
    """Regions and the student's picture; defaults are CLIPSelf's.

    Raises:
        ConfigError: a value outside its range.
    """

    regions: Regions = "patches"
    """Image patches need no labels; proposals are boxes, and so are random ones, which need no labels either. Masks go
    beyond the paper, and so do patches and proposals together, by the throw of a coin at every visit: patches teach
    grounds, proposals teach things."""
    regions_from: RegionsFrom = "auto"
    """Whether proposals and masks are the data set's, or found in the picture (``regions.propose``) without any labels;
    ``auto`` is the data set's for records that have them, else found."""
    max_split: int = 6
    """Patches: the most rows or columns of a grid (M of the paper; ``training/params.py``)."""
    max_regions: int = 20
    """Regions of one picture in one step (``training/data.py``, both data sets)."""
    context: float | None = None
    """The side of the teacher's crop over that of the region; None is 1 for patches and masks and 1.5 for proposals."""
    size: int | None = None
    """Longest side of the student's picture in pixels; None is 64 cells: 1024 px for patch 16, 896 px for patch 14."""
    scales: tuple[int, ...] = ()
    """Sizes of which each step draws one for the student's pictures, resized from ``size``; none by default.

    A size that is named twice is drawn twice as often.

    The official code's ``--multiscale``, which no script switches on, draws from 320, 640, 896 and 1024 for patch 16.
    """
    blocks: int | None = None
    """How many of the last blocks learn; None is all of them, as in the scripts."""
    route: str = "value"
    """How the student's last block is read; the paper drops its attention."""
    window: Window | None = None
    """Cells along a side of windows that the student's attention stays inside; None is the whole map, as in the paper.

    The paper's Table 7 has window attention in the place of distillation; this is the two together.
    """

    def __post_init__(self) -> None:
        for name in ("max_split", "max_regions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, but got {getattr(self, name)}.")
        for name in ("size", "blocks", "context"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"`{name}` must be positive, or left out, but got {value}.")
        if isinstance(self.window, int) and self.window < 1:
            raise ConfigError(f"`window` must be at least 1 cell, 'native', or left out, but got {self.window}.")
        if any(scale < 1 for scale in self.scales):
            raise ConfigError(f"`scales` must be sizes in pixels, but got {self.scales}.")
