"""What the verbs of this folder return: regions in words, a word for every pixel, a map for every word."""

from __future__ import annotations

from dataclasses import dataclass

import PIL.Image
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from closeup._types import IGNORE, Boxes, ImageLike, LabelMap, Labels, Masks
from closeup.errors import InputError, suggest
from closeup.predict.pixels import Cells, to_pixels
from closeup.predict.provenance import Provenance
from closeup.predict.result import Arrays, LabelledResult, Regions, Result
from closeup.viz import draw_heatmap, draw_regions, draw_segmentation, draw_sheet, name_colours


@dataclass(frozen=True, slots=True, eq=False)
class RegionResult(LabelledResult):
    """Regions in words, best first: column 0 of ``labels``, ``scores`` and ``probabilities`` is the best word.

    ``boxes`` are xyxy pixels and ``masks`` planes of the original image; a region may have both. ``scores``
    are raw, the cosine of region and word, -1 to 1, or a matcher's; ``probabilities`` are their softmax over the
    vocabulary.
    """

    image: ImageLike
    size: tuple[int, int]
    boxes: Boxes | None
    masks: Masks | None
    labels: Int[Tensor, "count top"]
    scores: Float[Tensor, "count top"]
    probabilities: Float[Tensor, "count top"]
    names: tuple[str, ...]
    provenance: Provenance

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def words(self) -> tuple[str, ...]:
        """The best word of every region."""
        return tuple(self.names[label] for label in self.labels[:, 0].tolist())

    def picture(self) -> PIL.Image.Image:
        """Return the image with every region outlined and labelled with its best word and probability.

        A word has the colour that it has in a segmentation with the same vocabulary.
        """
        colours = name_colours(self.names)
        return draw_regions(
            self.image,
            boxes=self.boxes,
            masks=self.masks,
            texts=self.words,
            scores=self.probabilities[:, 0],
            colours=[colours[label] for label in self.labels[:, 0].tolist()],
        )

    def labelled(self) -> Regions:
        """Return boxes, masks, the best label of every region and its probability."""
        return self.boxes, self.masks, self.labels[:, 0], self.probabilities[:, 0]

    def arrays(self) -> Arrays:
        """Return ``labels``, ``scores``, ``probabilities``, and ``boxes`` and ``masks`` where there are any."""
        tables = {name: getattr(self, name) for name in ("boxes", "masks", "labels", "scores", "probabilities")}
        return {name: table.numpy() for name, table in tables.items() if table is not None}


@dataclass(frozen=True, slots=True, eq=False)
class SegmentationResult(LabelledResult):
    """A word for every pixel of the original image.

    ``label_map`` indexes ``names``; IGNORE (-1) is background. ``scores`` is the score of the best word
    at each pixel, background or not: a cosine, a logit or a probability, as the method has it. ``cells`` are those of
    all words at cells that cover the image: the rest follows from them.
    """

    image: ImageLike
    size: tuple[int, int]
    label_map: LabelMap
    scores: Float[Tensor, "height width"]
    cells: Cells
    names: tuple[str, ...]
    provenance: Provenance

    @property
    def present(self) -> tuple[str, ...]:
        """The words that have a pixel, in the order of their labels."""
        return tuple(self.names[label] for label in self._labels().tolist())

    def mask(self, name: str) -> Bool[Tensor, "height width"]:
        """Return the pixels of a word; InputError for a word that is none of the names."""
        if name not in self.names:
            raise InputError(f"No word of this result is {name!r}. {suggest(name, self.names)}")
        found: Tensor = self.label_map == self.names.index(name)
        return found

    def picture(self) -> PIL.Image.Image:
        """Return the image painted with the words' colours, and a legend."""
        return draw_segmentation(self.image, self.label_map, self.names, legend=True)

    def labelled(self) -> Regions:
        """Return a mask for every word that has a pixel, however many parts it has, its label and mean raw score."""
        labels = self._labels()
        masks = self.label_map == labels[:, None, None]
        return None, masks, labels, torch.tensor([float(self.scores[mask].mean()) for mask in masks])

    def arrays(self) -> Arrays:
        """Return ``label_map``, ``scores`` and ``cells``."""
        return {"label_map": self.label_map.numpy(), "scores": self.scores.numpy(), "cells": self.cells.numpy()}

    def _labels(self) -> Labels:
        found: Tensor = torch.unique(self.label_map)
        return found[found != IGNORE]


@dataclass(frozen=True, slots=True, eq=False)
class HeatmapResult(Result):
    """How much every place of an image is like each word.

    ``cells`` are scores at the cells of the dense map, which cover the image. They are cosines or a matcher's scores,
    or differences of them where the map was contrasted.
    """

    image: ImageLike
    size: tuple[int, int]
    cells: Cells
    names: tuple[str, ...]
    provenance: Provenance

    def pixels(self) -> Float[Tensor, "words height width"]:
        """Return the maps at the size of the original image, interpolated."""
        return to_pixels(self.cells, self.size)

    def picture(self) -> PIL.Image.Image:
        """Return one heat map per word under its name, all on one scale."""
        low, high = float(self.cells.min()), float(self.cells.max())
        maps = [draw_heatmap(self.image, plane, low=low, high=high) for plane in self.cells]
        return draw_sheet(maps, self.names)

    def arrays(self) -> Arrays:
        """Return ``cells``."""
        return {"cells": self.cells.numpy()}
