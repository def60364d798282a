"""What heads of regions share: which regions they learn from, and what becomes of boxes that have scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import clip_boxes_to_image

from closeup._types import Labels
from closeup.match.detections import Detections, Suppression, select
from closeup.models.region_features import per_picture

Sizes = Int[Tensor, "batch 2"]
"""Height and width in pixels of the part of each canvas that shows its picture, from the top left corner."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Regions to learn from: each picture's boxes, and the true box that each is compared with.

    For all together classes, moves of the boxes, and which are objects. The background is the last class.
    """

    boxes: list[Float[Tensor, "_ 4"]]
    matched: list[Int[Tensor, " _"]]
    classes: Labels
    deltas: Float[Tensor, "regions 4"]
    objects: Int[Tensor, " objects"]


def region_sampler(regions: int) -> RoIHeads:
    """Return torchvision's sampler of regions: a quarter objects, above an IoU of 0.5 with a box, and true boxes too.

    Its box coder has the weights 10, 10, 5, 5.
    """
    return RoIHeads(None, None, None, 0.5, 0.5, regions, 0.25, None, 0.0, 0.0, 0)


def as_targets(batch: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Return a batch's ``boxes`` and ``labels`` picture by picture; torchvision counts classes from 1."""
    counts = per_picture(batch["owners"], len(batch["images"]))
    boxes, labels = (torch.split(batch[name], counts) for name in ("boxes", "labels"))
    return [{"boxes": box, "labels": label + 1} for box, label in zip(boxes, labels, strict=True)]


def draw(
    sampler: RoIHeads,
    proposed: Sequence[Float[Tensor, "_ 4"]],
    targets: Sequence[Mapping[str, Tensor]],
    *,
    background: int,
) -> Drawn:
    """Draw regions to learn from among proposals and true boxes; ``background`` is the number of the last class."""
    boxes, matched, found, deltas = sampler.select_training_samples(list(proposed), list(targets))
    classes = torch.cat(found)
    objects = (classes > 0).nonzero()[:, 0]
    return Drawn(boxes, matched, torch.where(classes > 0, classes - 1, background), torch.cat(deltas), objects)


def objects_of(
    drawn: Drawn, batch: Mapping[str, Tensor]
) -> tuple[list[Float[Tensor, "_ 4"]], list[Bool[Tensor, "_ _ _"]], list[Int[Tensor, " _"]]]:
    """Return each picture's regions that are objects, its true masks, and which of them each region is of."""
    counts = [len(boxes) for boxes in drawn.boxes]
    objects = torch.zeros_like(drawn.classes, dtype=torch.bool)
    objects[drawn.objects] = True
    shown = objects.split(counts)
    boxes = [box[kept] for box, kept in zip(drawn.boxes, shown, strict=True)]
    matched = [match[kept] for match, kept in zip(drawn.matched, shown, strict=True)]
    return boxes, list(batch["masks"].split(per_picture(batch["owners"], len(counts)))), matched


def inside(
    boxes: Float[Tensor, "*regions 4"], size: Sequence[int]
) -> tuple[Float[Tensor, "*regions 4"], Bool[Tensor, " *regions"]]:
    """Return boxes cut to a picture of some height and width, and which of them have any of it left."""
    cut = clip_boxes_to_image(boxes, (size[0], size[1]))
    return cut, (cut[..., 2:] > cut[..., :2]).all(dim=-1)


def picked(
    boxes: Sequence[Float[Tensor, "_ 4"] | Float[Tensor, "_ words 4"]],
    scores: Sequence[Float[Tensor, "_ words"]],
    sizes: Sizes,
    *,
    threshold: float,
    limit: int,
    suppression: Suppression,
) -> list[Detections]:
    """Return the best of each picture's boxes, cut to the picture; see ``select``."""
    found = []
    for box, score, size in zip(boxes, scores, sizes.tolist(), strict=True):
        box, left = inside(box, size)
        # Nothing overlaps a box of which nothing is left: it would never go.
        score = score.masked_fill(~(left if left.ndim == 2 else left[:, None]), -1.0)
        kept = select(box, score, threshold=threshold, limit=limit, suppression=suppression)
        best = box[kept.rows] if box.ndim == 2 else box[kept.rows, kept.labels]
        found.append(Detections(best, kept.labels, kept.scores))
    return found
