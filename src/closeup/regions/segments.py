"""A picture cut into segments of one colour, and the larger regions that neighbouring segments make together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8
from skimage.graph import RAG, merge_hierarchical
from skimage.segmentation import felzenszwalb

from closeup.errors import ConfigError

Pixels = UInt8[np.ndarray, "rows cols 3"]
SegmentMap = Int[np.ndarray, "rows cols"]


@dataclass(frozen=True, slots=True)
class Level:
    """How coarsely a picture is segmented; the names are those of the paper of Felzenszwalb and Huttenlocher.

    Raises:
        ConfigError: a value outside its range.
    """

    scale: float
    """Larger is coarser (``k``): how far apart two segments must be, the more so the smaller they are."""
    sigma: float
    """The width in pixels of the Gaussian that smooths the picture before."""
    min_size: int
    """The fewest pixels of a segment."""

    def __post_init__(self) -> None:
        if not (self.scale > 0 and self.sigma >= 0 and self.min_size >= 1):
            raise ConfigError(
                f"A level of scale {self.scale}, sigma {self.sigma} and min_size {self.min_size}: "
                "scale must be positive, sigma not negative, min_size at least 1."
            )


def segment_picture(pixels: Pixels, level: Level) -> SegmentMap:
    """Return a partition of a picture, segments numbered from 0.

    Source: Felzenszwalb and Huttenlocher, Efficient graph-based image segmentation, IJCV 2004; scikit-image's form.
    """
    segments: SegmentMap = felzenszwalb(pixels, scale=level.scale, sigma=level.sigma, min_size=level.min_size)
    return segments


def neighbours(segments: SegmentMap) -> Int[np.ndarray, "pairs 2"]:
    """Return every pair of segments that share a border, each once, the smaller number first."""
    across = np.stack([segments[:, :-1].ravel(), segments[:, 1:].ravel()], axis=1)
    down = np.stack([segments[:-1].ravel(), segments[1:].ravel()], axis=1)
    borders = np.concatenate([across, down])
    return np.unique(np.sort(borders[borders[:, 0] != borders[:, 1]], axis=1), axis=0)


def merges(pixels: Pixels, segments: SegmentMap, pairs: Int[np.ndarray, "pairs 2"]) -> list[tuple[int, ...]]:
    """Return what arises when the two neighbours of the most similar mean colour are merged until one region is left.

    Each merge is the segments that it consists of; a partition of ``n`` connected segments has ``n - 1``.
    Source: the grouping of Selective Search (Uijlings et al., IJCV 2013), with mean colour as its only measure.
    """
    flat, count = segments.ravel(), int(segments.max()) + 1
    sizes = np.bincount(flat, minlength=count)
    sums = np.stack([np.bincount(flat, pixels[..., each].ravel(), count) for each in range(3)], axis=1)
    graph = RAG()
    for segment in range(count):
        graph.add_node(segment, labels=[segment], size=sizes[segment], sum=sums[segment])

    def apart(one: int, other: int) -> float:
        first, second = graph.nodes[one], graph.nodes[other]
        return float(np.linalg.norm(first["sum"] / first["size"] - second["sum"] / second["size"]))

    def weight(_: RAG, __: int, merged: int, neighbour: int) -> dict[str, float]:
        return {"weight": apart(merged, neighbour)}

    found: list[tuple[int, ...]] = []

    def merge(_: RAG, source: int, target: int) -> None:
        one, other = graph.nodes[target], graph.nodes[source]
        one["size"], one["sum"] = one["size"] + other["size"], one["sum"] + other["sum"]
        found.append((*one["labels"], *other["labels"]))

    for one, other in pairs.tolist():
        graph.add_edge(one, other, weight=apart(one, other))
    merge_hierarchical(
        segments, graph, np.inf, rag_copy=False, in_place_merge=True, merge_func=merge, weight_func=weight
    )
    return found


def groups_of_segments(pixels: Pixels, segments: SegmentMap) -> list[tuple[int, ...]]:
    """Return every segment, every merge and every pair of neighbours, as tuples of segment numbers."""
    pairs = neighbours(segments)
    single = [(segment,) for segment in range(int(segments.max()) + 1)]
    return [*single, *merges(pixels, segments, pairs), *map(tuple, pairs.tolist())]
