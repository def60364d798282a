"""Regions found in a picture itself, without labels or trained weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from jaxtyping import Bool, Int, UInt8
from skimage.measure import regionprops
from torch import Tensor
from torchvision.ops import nms

from closeup._types import Boxes, Masks
from closeup.errors import ConfigError
from closeup.geometry import masks_to_boxes
from closeup.regions.segments import Level, SegmentMap, groups_of_segments, segment_picture

LEVELS = (Level(100, 0.8, 60), Level(1000, 0.5, 100))
"""Chosen on scenes of the world and on street photographs; ``docs/log.md`` has the figures."""


@dataclass(frozen=True, slots=True)
class ProposalPolicy:
    """How regions are found in a picture.

    Raises:
        ConfigError: a value outside its range.
    """

    levels: tuple[Level, ...] = LEVELS
    """The segmentations whose segments, merges and pairs of neighbours are proposed."""
    side: int = 384
    """Longest side in pixels at which a picture is segmented; smaller pictures are not enlarged."""
    smallest: float = 0.001
    """Least share of the picture that a region may cover."""
    largest: float = 0.9
    """Largest share of the picture that a region may cover."""
    duplicate: float = 0.9
    """Of two regions whose boxes have a larger intersection over union than this, the larger is kept."""
    limit: int = 300
    """The most regions of one picture; the largest are kept."""

    def __post_init__(self) -> None:
        if not self.levels:
            raise ConfigError("`levels` is empty: give at least one level of segmentation.")
        for name in ("side", "limit"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, but got {getattr(self, name)}.")
        if not 0 <= self.smallest < self.largest <= 1:
            raise ConfigError(
                f"`smallest` ({self.smallest}) and `largest` ({self.largest}) are shares of the picture: "
                "0 <= smallest < largest <= 1."
            )
        if not 0 < self.duplicate <= 1:
            raise ConfigError(f"`duplicate` is an intersection over union above 0 up to 1, but got {self.duplicate}.")


@dataclass(frozen=True, slots=True, eq=False)
class CoarseMasks:
    """Masks at the size at which a picture was segmented, scaled to the picture's own as they are asked for.

    A hundred masks of a large photograph at its own size would be a gigabyte.
    """

    planes: Masks
    size: tuple[int, int]
    """Height and width of the picture."""

    def __len__(self) -> int:
        """Return the number of masks."""
        return len(self.planes)

    def __getitem__(self, rows: slice | Int[Tensor, " chosen"]) -> Bool[Tensor, "_ height width"]:
        """Return some masks on the picture: every pixel has the value of the coarse pixel its centre lies in."""
        chosen, (height, width) = self.planes[rows], self.size
        if chosen.shape[1:] == (height, width):
            return chosen
        return chosen[:, _source(height, chosen.shape[1])][:, :, _source(width, chosen.shape[2])]

    def boxes(self) -> Boxes:
        """Return the tight boxes of the masks on the picture."""
        coarse = masks_to_boxes(self.planes).long()
        height, width = self.size
        across, down = _source(width, self.planes.shape[2]), _source(height, self.planes.shape[1])
        sides = zip((across, down, across, down), coarse.T.contiguous(), strict=True)
        return torch.stack([torch.searchsorted(along, edges) for along, edges in sides], dim=1).float()


@dataclass(frozen=True, slots=True, eq=False)
class Proposed:
    """The regions of one picture, the largest mask first; ``boxes`` are the tight boxes of ``masks``."""

    boxes: Boxes
    masks: CoarseMasks

    def __len__(self) -> int:
        """Return the number of regions."""
        return len(self.boxes)


def propose(
    image: PIL.Image.Image | UInt8[np.ndarray, "height width 3"], policy: ProposalPolicy = ProposalPolicy()
) -> Proposed:
    """Return boxes and masks of what may be things, always the same for a picture, and always at least one.

    Every level is a graph-based segmentation; proposed are its segments, what they merge to by mean colour, and all
    pairs of neighbours. A picture in which nothing is found, as one of a single colour, gives its top left quarter,
    as CLIPSelf has it for a picture without a usable box.

    Args:
        image: An RGB picture.
        policy: How to find them.

    Source: Felzenszwalb and Huttenlocher, IJCV 2004, for the segments; Uijlings et al., Selective Search, IJCV 2013,
    for merging them, which has more measures than colour.
    """
    picture = PIL.Image.fromarray(image) if isinstance(image, np.ndarray) else image.convert("RGB")
    pixels = np.asarray(_shrunk(picture, policy.side))
    rows, cols = pixels.shape[:2]
    regions = [region for level in policy.levels for region in _regions(pixels, level)]
    sizes = torch.tensor([float(region.size) for region in regions])
    boxes = torch.tensor([region.box for region in regions], dtype=torch.float32)
    share = sizes / (rows * cols)
    fitting = ((share >= policy.smallest) & (share <= policy.largest)).nonzero()[:, 0]
    # Kept are the larger of two, and they come in falling order.
    kept = fitting[nms(boxes[fitting], sizes[fitting], policy.duplicate)][: policy.limit].tolist()
    masks = (
        torch.from_numpy(np.stack([regions[index].mask() for index in kept]))
        if kept
        else _quarter(picture.height, picture.width)
    )
    coarse = CoarseMasks(masks, (picture.height, picture.width))
    return Proposed(coarse.boxes(), coarse)


@dataclass(frozen=True, slots=True, eq=False)
class _Region:
    """Some segments of a partition, with the size of their union in pixels and its box."""

    segments: SegmentMap
    members: tuple[int, ...]
    size: int
    box: tuple[int, int, int, int]

    def mask(self) -> Bool[np.ndarray, "rows cols"]:
        return np.isin(self.segments, self.members)


def _regions(pixels: UInt8[np.ndarray, "rows cols 3"], level: Level) -> list[_Region]:
    segments = segment_picture(pixels, level)
    parts = regionprops(segments + 1)
    sizes = np.array([part.area for part in parts], dtype=np.int64)
    spans = np.array([part.bbox for part in parts])
    found = []
    for members in groups_of_segments(pixels, segments):
        of = list(members)
        top, left = spans[of, :2].min(axis=0).tolist()
        bottom, right = spans[of, 2:].max(axis=0).tolist()
        found.append(_Region(segments, members, int(sizes[of].sum()), (left, top, right, bottom)))
    return found


def _shrunk(picture: PIL.Image.Image, side: int) -> PIL.Image.Image:
    factor = side / max(picture.size)
    if factor >= 1:
        return picture
    width, height = (max(1, round(length * factor)) for length in picture.size)
    return picture.resize((width, height), PIL.Image.Resampling.BILINEAR, reducing_gap=3.0)


def _quarter(rows: int, cols: int) -> Masks:
    mask = torch.zeros(1, rows, cols, dtype=torch.bool)
    mask[:, : (rows + 1) // 2, : (cols + 1) // 2] = True
    return mask


def _source(length: int, coarse: int) -> Int[Tensor, " {length}"]:
    """Return for each of ``length`` pixels in a row the coarse pixel, of fewer, that its centre lies in."""
    return (2 * torch.arange(length) + 1) * coarse // (2 * length)
