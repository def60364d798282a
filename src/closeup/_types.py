"""Types that every row shares: what an image may be at the public edge, common shapes, and what labels leave open."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import PIL.Image
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

ImageLike: TypeAlias = str | Path | PIL.Image.Image | UInt8[np.ndarray, "_ _ 3"]
"""An image at the public edge: a path, a PIL picture, or a uint8 RGB array."""

Images: TypeAlias = Float[Tensor, "batch 3 height width"]
"""Images inside the library: float, already normalised by the model's own mean and deviation."""

DenseMap: TypeAlias = Float[Tensor, "batch dim rows cols"]
"""Joint-space features, one per patch."""

Embeddings: TypeAlias = Float[Tensor, "count dim"]
"""Joint-space embeddings of images, regions or texts."""

Boxes: TypeAlias = Float[Tensor, "count 4"]
"""xyxy, x to the right, y down, half-open; pixels of the original image unless a docstring says otherwise."""

Masks: TypeAlias = Bool[Tensor, "count height width"]
"""One plane per region, on the original image unless a docstring says otherwise."""

Labels: TypeAlias = Int[Tensor, " count"]
"""Indices into an ordered list of names."""

LabelMap: TypeAlias = Int[Tensor, "height width"]
"""An index into an ordered list of names per pixel; IGNORE where there is none."""

IGNORE = -1
"""The label of a pixel or region that takes no part in training or evaluation."""


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Boxes (xyxy) around several things of one class, too many to tell apart, the label of each, maybe its mask."""

    boxes: Boxes
    labels: Labels
    masks: Masks | None = None


@dataclass(frozen=True, slots=True)
class Federated:
    """What an image of a federated data set says of classes beyond its boxes; labels index the reader's names.

    ``absent`` classes were looked for and are not there; of ``partial`` ones not every object is marked. Any other
    class without a box was not looked for, so that nothing is known of it.

    Source: LVIS (arXiv 1908.03195), ``neg_category_ids`` and ``not_exhaustive_category_ids`` of its files.
    """

    absent: tuple[int, ...] = ()
    partial: tuple[int, ...] = ()
