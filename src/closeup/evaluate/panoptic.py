"""Panoptic quality: how many segments are found, and how well those that are found fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from closeup._types import IGNORE, Labels
from closeup.errors import InputError
from closeup.evaluate._checks import check_labels


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """A picture cut into segments: the number of each pixel's, IGNORE where there is none, and each one's label.

    Segments of the truth that are ``crowd`` outline several things of one class, which are not told apart.
    """

    places: Int[Tensor, "height width"]
    labels: Labels
    crowd: Bool[Tensor, " segments"] | None = None

    def cpu(self) -> Segments:
        """Return them on the CPU."""
        return Segments(self.places.cpu(), self.labels.cpu(), None if self.crowd is None else self.crowd.cpu())

    def __post_init__(self) -> None:
        check_labels(self.places, len(self.labels), "segments")
        if self.crowd is not None and len(self.crowd) != len(self.labels):
            raise InputError(f"{len(self.crowd)} marks of crowds for {len(self.labels)} segments. Give one for each.")


@dataclass(frozen=True, slots=True, eq=False)
class PanopticScores:
    """What was counted for each class: the sum of IoUs of matched segments, those matched, false and missed."""

    names: tuple[str, ...]
    things: tuple[bool, ...]
    iou: Float[Tensor, " words"]
    matched: Int[Tensor, " words"]
    false: Int[Tensor, " words"]
    missed: Int[Tensor, " words"]

    def per_class(self) -> dict[str, Float[Tensor, " words"]]:
        """Return ``pq``, ``sq`` and ``rq`` of every class, 0 to 1; NaN for one that is neither true nor predicted.

        Of a class without a match all three are 0.
        """
        right, wrong = self.matched.double(), (self.false + self.missed).double() / 2
        seen = (right + wrong).masked_fill(right + wrong == 0, torch.nan)
        segmentation = (self.iou / right.clamp(min=1)).masked_fill(seen.isnan(), torch.nan)
        return {"pq": self.iou / seen, "sq": segmentation, "rq": right / seen}

    def summary(self, marks: Sequence[bool] | None = None) -> dict[str, float | None]:
        """Return the means over classes that are true or predicted somewhere, over those ``marks`` choose alone.

        ``pq``, ``sq`` and ``rq`` of all, and of things and stuff apart; None where there is no such class.
        """
        chosen = torch.ones(len(self.names), dtype=torch.bool) if marks is None else torch.tensor(list(marks))
        thing = torch.tensor(self.things, dtype=torch.bool)
        groups = {"": chosen, "things ": chosen & thing, "stuff ": chosen & ~thing}
        found = self.per_class()
        return {f"{group}{name}": _mean(found[name][mask]) for group, mask in groups.items() for name in found}


class PanopticQuality:
    """Adds up panoptic quality over pictures, by the rules of COCO.

    A predicted and a true segment of one class match where their IoU is above one half; void pixels of the truth do not
    count as union. Predictions that lie for more than half in void, or in a crowd of their class, are neither right nor
    wrong; crowds are never missed.

    Raises:
        InputError: no names, or not one kind for each.

    Of several crowds of one class in a picture the last one counts here, as in the official code.

    Source: Kirillov et al., Panoptic Segmentation, CVPR 2019 (arXiv 1801.00868); ``cocodataset/panopticapi``
    ``panopticapi/evaluation.py``.
    """

    def __init__(self, names: Sequence[str], things: Sequence[bool]) -> None:
        if not names or len(names) != len(things):
            raise InputError(
                f"{len(names)} names and {len(things)} kinds: give at least one class, and a kind for each."
            )
        self.names, self.things = tuple(names), tuple(things)
        self.iou = torch.zeros(len(names), dtype=torch.float64)
        self.counts = torch.zeros(3, len(names), dtype=torch.int64)

    def update(self, found: Segments, truth: Segments) -> None:
        """Add one picture; both of its maps are of the size of the truth.

        Raises:
            InputError: maps of two sizes, or labels that are no names.
        """
        if found.places.shape != truth.places.shape:
            raise InputError(
                f"The prediction is {tuple(found.places.shape)} and the truth {tuple(truth.places.shape)}: give both "
                "at the size of the picture."
            )
        for segments, what in ((found, "predicted labels"), (truth, "true labels")):
            check_labels(segments.labels, len(self.names), what)
            if bool((segments.labels == IGNORE).any()):
                raise InputError(f"The {what} hold {IGNORE}: a segment without a class is void. Leave it out.")
        found, truth = found.cpu(), truth.cpu()
        crowd = torch.zeros(len(truth.labels), dtype=torch.bool) if truth.crowd is None else truth.crowd
        shared, theirs, ours = _overlaps(found, truth)
        kin = found.labels[:, None] == truth.labels[None, :]
        # Void and empty segments are in the last row and column.
        inside, void = shared[:-1, :-1], shared[:-1, -1]
        union = ours[:, None] + theirs[None, :] - inside - void[:, None]
        iou = inside / union.clamp(min=1)
        match = (iou > 0.5) & kin & ~crowd[None, :]
        hit, seen = match.any(dim=1), match.any(dim=0)
        ignored = void + (inside * (kin & _last_crowds(truth.labels, crowd)[None, :])).sum(dim=1)
        false = ~hit & (ours > 0) & (ignored <= 0.5 * ours)
        missed = ~seen & ~crowd & (theirs > 0)
        self.iou.index_add_(0, found.labels[hit], (iou * match).sum(dim=1)[hit])
        self.counts += torch.stack(
            [self._tally(found.labels[hit]), self._tally(found.labels[false]), self._tally(truth.labels[missed])]
        )

    def compute(self) -> PanopticScores:
        """Return what was counted so far."""
        return PanopticScores(self.names, self.things, self.iou.clone(), *self.counts.clone())

    def _tally(self, labels: Labels) -> Int[Tensor, " words"]:
        return torch.bincount(labels, minlength=len(self.names))


def _last_crowds(labels: Labels, crowd: Bool[Tensor, " segments"]) -> Bool[Tensor, " segments"]:
    """Return which segments are the last crowd of their class."""
    last = {
        label: place for place, (label, mark) in enumerate(zip(labels.tolist(), crowd.tolist(), strict=True)) if mark
    }
    chosen = torch.zeros_like(crowd)
    chosen[list(last.values())] = True
    return chosen


def _overlaps(found: Segments, truth: Segments) -> tuple[Tensor, Tensor, Tensor]:
    """Return how many pixels each pair of segments shares, void last, and how many each true and found one has."""
    columns = len(truth.labels) + 1
    pairs = _void_last(found) * columns + _void_last(truth)
    shared = torch.bincount(pairs.flatten(), minlength=(len(found.labels) + 1) * columns).view(-1, columns).double()
    return shared, shared.sum(dim=0)[:-1], shared.sum(dim=1)[:-1]


def _void_last(segments: Segments) -> Int[Tensor, "height width"]:
    places = segments.places.long()
    return torch.where(places == IGNORE, len(segments.labels), places)


def _mean(values: Float[Tensor, " chosen"]) -> float | None:
    known = values[~values.isnan()]
    return float(known.mean()) if len(known) else None
