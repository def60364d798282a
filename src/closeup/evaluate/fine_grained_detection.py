"""FG-OVD's two measures of a detector: ranks of right captions on its boxes, and average precision among captions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchvision.ops import box_iou

from closeup.errors import InputError, suggest
from closeup.evaluate.described_objects import OVERLAP, Answer, Asked, Objects
from closeup.evaluate.detection import AveragePrecision
from closeup.evaluate.fine_grained import FineGrained, rank_captions

UNASKED = ("count", "skip", "skip-images")
"""What becomes of objects whose caption the detector was not asked for in their image.

``count``: they count as not found. ``skip``: they are left out, as FG-OVD's code does, so that a detector which skips
what is hard for it seems better. ``skip-images``: left out are those in images where nothing was asked, as FG-OVD's
average precision does with ``--disable_nms``.
"""


@dataclass(frozen=True, slots=True, eq=False)
class FoundObjects:
    """The scores of objects' captions, right one first, as the detector gave them to its box there.

    ``places`` are the indices of each object's image and of the object in it. One that was not found has zeros: it
    ranks last. ``left_out`` objects have too few wrong captions; ``unasked`` ones were not asked for, whether they
    count or not.
    """

    scores: Float[Tensor, "objects captions"]
    found: Bool[Tensor, " objects"]
    places: tuple[tuple[int, int], ...]
    left_out: int
    unasked: int

    def ranks(self) -> FineGrained:
        """Return the rank of each object's right caption."""
        ranked = rank_captions(list(self.scores), self.scores.shape[1] - 1)
        return FineGrained(ranked.ranks, ranked.negatives, self.left_out)


def find_objects(
    objects: Sequence[Objects], answers: Sequence[Answer], negatives: int, *, unasked: str = "count"
) -> FoundObjects:
    """Return the scores that a detector gives the captions of every object with ``negatives`` wrong ones or more.

    An answer is thinned out; then the box that scores best of those that overlap the true one by an IoU above 0.5
    speaks for the object. ``unasked`` is "count" or "skip" of ``UNASKED``.

    Raises:
        InputError: an answer is not of an image and an object there, with its first ``negatives`` wrong captions, or
            there are two.

    Source: FG-OVD ``evaluation/ranks.py``, which skips objects that were not asked for (``UNASKED``).
    """
    _check_unasked(unasked, UNASKED[:2])
    asked = Asked(objects, answers, negatives)
    scores, found, places = [], [], []
    for place, row, answer in asked.objects():
        if answer is None and unasked == "skip":
            continue
        matched = None if answer is None else _matched(answer.thinned(), objects[place].boxes[row])
        found.append(matched is not None)
        scores.append(torch.zeros(negatives + 1) if matched is None else matched.float().cpu())
        places.append((place, row))
    return FoundObjects(
        scores=torch.stack(scores) if scores else torch.zeros(0, negatives + 1),
        found=torch.tensor(found, dtype=torch.bool),
        places=tuple(places),
        left_out=asked.left_out,
        unasked=asked.unasked,
    )


@dataclass(frozen=True, slots=True)
class CaptionPrecision:
    """COCO's twelve figures over right captions as classes, 0 to 1, and NaN where there is no such object.

    ``images`` and ``objects`` are those that count, the others as in ``FoundObjects``.
    """

    figures: Mapping[str, float]
    images: int
    objects: int
    left_out: int
    unasked: int

    def summary(self) -> dict[str, float | int | None]:
        """Return a flat mapping fit for JSON; a figure that does not exist is None."""
        figures = {name: None if value != value else value for name, value in self.figures.items()}
        counts = {"images": self.images, "objects": self.objects, "left_out": self.left_out, "unasked": self.unasked}
        return {**figures, **counts}


def caption_precision(
    objects: Sequence[Objects],
    answers: Sequence[Answer],
    negatives: int,
    *,
    thin: bool = True,
    unasked: str = "count",
) -> CaptionPrecision:
    """Return the average precision of objects with ``negatives`` wrong captions or more, by the right ones.

    Answers are thinned out, with ``thin``, each for itself; those of an image are put together, and COCO's rules do the
    rest. A wrong caption is never true anywhere, so all that it can do is to take a box away from the right one.
    ``unasked`` is one of ``UNASKED``.

    Raises:
        InputError: as ``find_objects``.

    Source: FG-OVD ``evaluation/evaluate_map.py``.
    """
    _check_unasked(unasked, UNASKED)
    asked = Asked(objects, answers, negatives)
    counted: defaultdict[int, list[int]] = defaultdict(list)
    for place, row, answer in asked.objects():
        skipped = unasked == "skip" or (unasked == "skip-images" and not asked.in_image(place))
        if answer is not None or not skipped:
            counted[place].append(row)
    names = dict.fromkeys(objects[place].right[row] for place, rows in counted.items() for row in rows)
    labels = {caption: label for label, caption in enumerate(names)}
    metric = AveragePrecision([str(caption) for caption in labels])
    for place, rows in counted.items():
        image = objects[place]
        given = [answer.thinned() if thin else answer for answer in asked.in_image(place)]
        # A detection of a class without objects counts nowhere, and so neither does one of a wrong caption.
        said = [labels.get(caption, -1) for answer in given for caption in answer.labels()]
        found, scores, guessed = torch.zeros(0, 4), torch.zeros(0), torch.tensor(said, dtype=torch.long)
        if given:
            found, scores = torch.cat([each.boxes for each in given]), torch.cat([each.best() for each in given])
        known = guessed >= 0
        true = torch.tensor([labels[image.right[row]] for row in rows])
        metric.add(image.boxes[rows], true, found[known], guessed[known], scores[known])
    if not counted:
        raise InputError(
            f"No object is left to be found: of {sum(len(each.right) for each in objects)} ones {asked.left_out} have "
            f"fewer than {negatives} wrong captions, and {asked.unasked} were not asked for."
        )
    total = sum(map(len, counted.values()))
    return CaptionPrecision(metric.figures(), len(counted), total, asked.left_out, asked.unasked)


def _matched(answer: Answer, box: Float[Tensor, 4]) -> Float[Tensor, " captions"] | None:
    """Return the scores of the best box that overlaps a true one; None where there is none."""
    overlaps = box_iou(answer.boxes.float(), box[None].to(answer.boxes).float())[:, 0]
    rows = (overlaps > OVERLAP).nonzero()[:, 0]
    return answer.scores[rows[answer.best()[rows].argmax()]] if len(rows) else None


def _check_unasked(unasked: str, choices: Sequence[str]) -> None:
    if unasked not in choices:
        raise InputError(f"Unknown rule for objects that were not asked for: {unasked!r}. {suggest(unasked, choices)}")
