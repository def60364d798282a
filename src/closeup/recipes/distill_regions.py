"""Where the regions of a distillation come from: grids of patches, a data set's boxes or masks, or the picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from closeup._types import Boxes, Masks
from closeup.data.record import Record
from closeup.errors import DataError
from closeup.geometry import areas, clip_boxes, masks_to_boxes
from closeup.recipes.found_regions import Found, RegionFinder
from closeup.recipes.region_config import RegionConfig
from closeup.regions import CropPolicy, candidate_grids, grid_boxes, random_boxes
from closeup.regions.propose import CoarseMasks

SMALLEST, LARGEST = 8.0**2, 1024.0**2
"""Areas in pixels of the original image between which a box is used (``training/data.py``)."""

PROPOSAL_CONTEXT = 1.5
"""The side of the teacher's crop of a proposal over that of the box (``training/data.py``)."""

RANDOM_PARTS = 500
"""Different random boxes; a teacher's embeddings of them can be kept."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """All regions that may be drawn from one picture, in pixels of the original, and how the teacher sees them."""

    boxes: Boxes
    crop: CropPolicy
    masks: Masks | CoarseMasks | None = None

    def __len__(self) -> int:
        """Return the number of regions."""
        return len(self.boxes)


class RegionSource(ABC):
    """Lists the regions of a record, and draws those of one visit.

    The student pools the regions as they are; the teacher sees them cut out by ``crop``. What is drawn depends on
    the generator alone, and at least one region always is.
    """

    crop: CropPolicy

    @abstractmethod
    def candidates(self, record: Record, height: int, width: int) -> Candidates:
        """Return every region of a picture of that size, always in the same order; DataError where there are none."""

    @abstractmethod
    def draw(self, count: int, rng: np.random.Generator) -> Int[np.ndarray, " drawn"]:
        """Return the indices of the regions of one visit, of ``count`` candidates."""

    def regions(
        self, record: Record, height: int, width: int, rng: np.random.Generator
    ) -> tuple[Candidates, Int[Tensor, " drawn"]]:
        """Return the candidates and which of them are drawn."""
        candidates = self.candidates(record, height, width)
        return candidates, torch.from_numpy(self.draw(len(candidates), rng))


@dataclass(frozen=True, slots=True, eq=False)
class ImagePatches(RegionSource):
    """The cells of one grid: any of the grids up to ``max_split``, each as likely as the others.

    Source: CLIPSelf (arXiv 2310.01403; ``wusize/CLIPSelf`` ``training/data.py``, GridDistillDataset).
    """

    max_split: int = 6
    max_regions: int = 20
    crop: CropPolicy = field(default_factory=CropPolicy)

    def candidates(self, record: Record, height: int, width: int) -> Candidates:
        """Return the cells of all grids, 361 for a split of 6."""
        return Candidates(_cells_of_all_grids(self.max_split, height, width), self.crop)

    def draw(self, count: int, rng: np.random.Generator) -> Int[np.ndarray, " drawn"]:
        """Return the cells of a random grid in random order, the first ``max_regions`` of them."""
        sizes = [rows * cols for rows, cols in candidate_grids(self.max_split)]
        grid = int(rng.integers(len(sizes)))
        return sum(sizes[:grid]) + rng.permutation(sizes[grid])[: self.max_regions]


@dataclass(frozen=True, slots=True, eq=False)
class RandomBoxes(RegionSource):
    """Boxes of any size and place, drawn from the same five hundred parts of every picture.

    Source: RegionCLIP (arXiv 2112.09106), beside the boxes of an RPN.
    """

    max_regions: int = 20
    crop: CropPolicy = field(default_factory=CropPolicy)

    def candidates(self, record: Record, height: int, width: int) -> Candidates:
        """Return the boxes of 8 x 8 pixels and more, however large; the whole picture where there is none."""
        boxes = _random_parts() * torch.tensor([width, height, width, height])
        usable = boxes[areas(boxes) >= SMALLEST]
        whole = torch.tensor([[0.0, 0.0, width, height]])
        return Candidates(usable if len(usable) else whole, self.crop)

    def draw(self, count: int, rng: np.random.Generator) -> Int[np.ndarray, " drawn"]:
        """Return up to ``max_regions`` of the boxes in random order."""
        return rng.permutation(count)[: self.max_regions]


@dataclass(frozen=True, slots=True, eq=False)
class Proposals(RegionSource):
    """The boxes of a record, of whatever class; a quarter of the picture where none is of a usable size.

    Source: CLIPSelf (``wusize/CLIPSelf`` ``training/data.py``, ProposalDistillDataset).
    """

    max_regions: int = 20
    crop: CropPolicy = field(default_factory=lambda: CropPolicy(enlarge=PROPOSAL_CONTEXT))

    def candidates(self, record: Record, height: int, width: int) -> Candidates:
        """Return the boxes of between 8 x 8 and 1024 x 1024 pixels; DataError for records without boxes."""
        if record.boxes is None:
            raise _lacking(record, "boxes", "proposals")
        boxes = clip_boxes(record.boxes.float(), height, width)
        boxes = boxes[_usable(boxes)]
        quarter = torch.tensor([[0.0, 0.0, width / 2, height / 2]])
        return Candidates(boxes if len(boxes) else quarter, self.crop)

    def draw(self, count: int, rng: np.random.Generator) -> Int[np.ndarray, " drawn"]:
        """Return up to ``max_regions`` of the boxes in random order."""
        return rng.permutation(count)[: self.max_regions]


@dataclass(frozen=True, slots=True, eq=False)
class MaskRegions(RegionSource):
    """The masks of a record: the student pools over a mask, the teacher sees its cut-out with the rest filled.

    Beyond the paper, whose regions are boxes; masked crops are OVSeg's (arXiv 2210.04150).
    """

    max_regions: int = 20
    crop: CropPolicy = field(default_factory=lambda: CropPolicy(masked=True))

    def candidates(self, record: Record, height: int, width: int) -> Candidates:
        """Return the masks whose boxes are of a usable size, as ``Proposals``; DataError for records without masks."""
        if record.masks is None:
            raise _lacking(record, "masks", "masks")
        boxes = masks_to_boxes(record.masks)
        kept = _usable(boxes)
        if kept.any():
            return Candidates(boxes[kept], self.crop, record.masks[kept])
        quarter = torch.zeros(1, height, width, dtype=torch.bool)
        quarter[:, : (height + 1) // 2, : (width + 1) // 2] = True
        return Candidates(masks_to_boxes(quarter), self.crop, quarter)

    def draw(self, count: int, rng: np.random.Generator) -> Int[np.ndarray, " drawn"]:
        """Return up to ``max_regions`` of the masks in random order."""
        return rng.permutation(count)[: self.max_regions]


@dataclass(frozen=True, slots=True, eq=False)
class FoundRegions(RegionSource):
    """What is found in the picture, in the place of what ``given`` reads from a record; else as ``given``.

    The paper's proposals are those of a detector trained on boxes; these take no labels and no training. With
    ``always`` they are used for records that have regions of their own too. No box is too large: what fills a
    photograph of many megapixels is seen as well as what fills a small one.
    """

    given: Proposals | MaskRegions
    find: Callable[[PIL.Image.Image], Found]
    crop: CropPolicy
    always: bool = False

    def candidates(self, record: Record, height: int, width: int) -> Candidates:
        """Return what is found, or the record's own."""
        own = record.masks if isinstance(self.given, MaskRegions) else record.boxes
        if own is not None and not self.always:
            return self.given.candidates(record, height, width)
        boxes, masks = self.find(record.load())
        return Candidates(boxes, self.crop, masks)

    def draw(self, count: int, rng: np.random.Generator) -> Int[np.ndarray, " drawn"]:
        """Return as many as ``given`` does."""
        return self.given.draw(count, rng)


def region_sources(config: RegionConfig, cache: str | Path | None = None) -> tuple[RegionSource, ...]:
    """Return the sources that a configuration names, of which each visit draws one.

    What is found in pictures is kept in ``cache``, if given.
    """
    patches = ImagePatches(config.max_split, config.max_regions, CropPolicy(enlarge=config.context or 1.0))
    if config.regions == "patches":
        return (patches,)
    if config.regions == "random":
        return (RandomBoxes(config.max_regions, CropPolicy(enlarge=config.context or 1.0)),)
    given: Proposals | MaskRegions
    if config.regions == "masks":
        given = MaskRegions(config.max_regions, CropPolicy(enlarge=config.context or 1.0, masked=True))
    else:
        given = Proposals(config.max_regions, CropPolicy(enlarge=config.context or PROPOSAL_CONTEXT))
    listed: RegionSource = given
    if config.regions_from != "data":
        find = RegionFinder(cache, masks=config.regions == "masks")
        listed = FoundRegions(given, find, given.crop, always=config.regions_from == "found")
    return (patches, listed) if config.regions == "patches-and-proposals" else (listed,)


@lru_cache(maxsize=256)
def _cells_of_all_grids(max_split: int, height: int, width: int) -> Boxes:
    return torch.cat([grid_boxes(rows, cols, height, width) for rows, cols in candidate_grids(max_split)])


@lru_cache(maxsize=1)
def _random_parts() -> Boxes:
    """Return the parts of a picture that random boxes are, in fractions: the same ones always."""
    return random_boxes(RANDOM_PARTS, np.random.default_rng(0))


def _usable(boxes: Boxes) -> Bool[Tensor, " count"]:
    return (areas(boxes) >= SMALLEST) & (areas(boxes) <= LARGEST)


def _lacking(record: Record, what: str, regions: str) -> DataError:
    return DataError(
        f"Record {record.id!r} has no {what}, which regions={regions!r} needs. "
        "Give a data set that has them, regions_from='found', or regions='patches', which needs none."
    )
