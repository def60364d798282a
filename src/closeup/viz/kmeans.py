"""The k-means picture of dense maps: which places of an image the model holds to be alike."""

from __future__ import annotations

from collections.abc import Sequence

import PIL.Image
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from closeup._types import ImageLike
from closeup.errors import InputError
from closeup.viz.canvas import enlarged, paint
from closeup.viz.overlay import MIN_SIDE
from closeup.viz.palette import SIZE, colours
from closeup.viz.sheet import draw_sheet

TRIALS = 4
"""Clusterings tried from different starts; the tightest is kept."""

STEPS = 50
"""The most times that the centres of one trial move."""


def kmeans(vectors: Float[Tensor, "count dim"], clusters: int, *, seed: int = 0) -> Int[Tensor, " count"]:
    """Return the cluster of each vector, from 0, by cosine k-means (k-means++ starts, best of ``TRIALS``).

    The same vectors, seed and machine give the same clusters. There are fewer clusters where there are
    fewer different vectors.

    Raises:
        InputError: where ``clusters`` is below 1, there is no vector, or a vector is not finite.
    """
    if clusters < 1:
        raise InputError(f"clusters must be 1 or more, not {clusters}.")
    if not len(vectors) or not bool(vectors.isfinite().all()):
        raise InputError(f"k-means needs finite vectors, at least one, but received {tuple(vectors.shape)}.")
    points = normalize(vectors.detach().float().cpu(), dim=1)
    generator = torch.Generator().manual_seed(seed)
    trials = [_lloyd(points, _spread_start(points, clusters, generator)) for _ in range(TRIALS)]
    best = max(range(TRIALS), key=lambda trial: trials[trial][1])
    return trials[best][0]


def _spread_start(points: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Draw each centre with a probability that grows with the squared distance to the nearest before it."""
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    nearest = torch.full((len(points),), torch.inf)
    while len(chosen) < min(clusters, len(points)):
        nearest = torch.minimum(nearest, (1 - points @ points[chosen[-1]]).clamp(min=0))
        if float(nearest.max()) < 1e-6:
            break
        chosen.append(int(torch.multinomial(nearest, 1, generator=generator)))
    return points[chosen]


def _lloyd(points: Tensor, centres: Tensor) -> tuple[Tensor, float]:
    """Move centres to the mean direction of their points until nothing changes; return clusters and total cosine."""
    labels = (points @ centres.T).argmax(dim=1)
    for _ in range(STEPS):
        sums = torch.zeros_like(centres).index_add_(0, labels, points)
        alone = torch.bincount(labels, minlength=len(centres)) == 0
        centres = torch.where(alone[:, None], centres, normalize(sums, dim=1))
        moved = (points @ centres.T).argmax(dim=1)
        if torch.equal(moved, labels):
            break
        labels = moved
    return labels, float((points * centres[labels]).sum())


def match_labels(
    labels: Int[Tensor, "rows cols"], reference: Int[Tensor, "rows cols"], clusters: int
) -> Int[Tensor, "rows cols"]:
    """Rename the clusters of one map so that they share as many cells as can be with those of another.

    Pairs are taken greedily, the largest overlap first: for colours, not for scores.
    """
    overlap = torch.bincount((labels * clusters + reference).flatten(), minlength=clusters**2).view(clusters, clusters)
    renamed = torch.zeros(clusters, dtype=torch.int64)
    for _ in range(clusters):
        one, other = divmod(int(overlap.argmax()), clusters)
        renamed[one] = other
        overlap[one], overlap[:, other] = -1, -1
    return renamed[labels]


def kmeans_sheet(
    image: ImageLike,
    maps: Sequence[tuple[str, Float[Tensor, "_dim _rows _cols"]]],
    *,
    clusters: int = 8,
    seed: int = 0,
    alpha: float = 0.75,
    columns: int | None = None,
    min_side: int = MIN_SIDE,
) -> PIL.Image.Image:
    """Return the photograph and, beside it, the clusters of each dense map ``(title, map)``, painted over it.

    Maps may come from different models and have different resolutions; each covers the whole image (cut
    the pad off first) and is clustered by itself. Clusters of later maps take the colours of the
    clusters of the first map that they overlap most. After Figures 1c and 4 of CLIPSelf (arXiv 2310.01403).

    Raises:
        InputError: as ``kmeans`` does.
    """
    picture, _ = enlarged(image, min_side)
    size = (picture.height, picture.width)
    panels: list[PIL.Image.Image] = [picture]
    reference: Tensor | None = None
    paints = [colours()[index % SIZE] for index in range(clusters)]
    for _, dense in maps:
        found = kmeans(dense.flatten(1).T, clusters, seed=seed).view(dense.shape[1:])
        found = interpolate(found[None, None].float(), size=size, mode="nearest-exact")[0, 0].long()
        found = _by_size(found, clusters) if reference is None else match_labels(found, reference, clusters)
        reference = found if reference is None else reference
        panels.append(paint(picture, found, paints, alpha))
    return draw_sheet(panels, ["image", *(title for title, _ in maps)], columns=columns or len(panels))


def _by_size(labels: Tensor, clusters: int) -> Tensor:
    """Rename clusters so that 0 is the largest."""
    order = torch.bincount(labels.flatten(), minlength=clusters).argsort(descending=True, stable=True)
    return order.argsort()[labels]
