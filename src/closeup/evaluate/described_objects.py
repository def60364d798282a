"""What FG-OVD's measures are given: the described objects of images, and a detector's answers about their captions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor
from torchvision.ops import nms

from closeup.errors import InputError

Caption: TypeAlias = int | str
"""A caption's id, or where every text is one caption, the text."""

OVERLAP = 0.5
"""Boxes of one answer that overlap more, by IoU, are one; and a true box is found by one that overlaps it more."""


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """The described objects of an image: boxes (xyxy, pixels), the right caption of each, and wrong ones in order.

    Raises:
        InputError: not one of each for every box.
    """

    image: str
    boxes: Float[Tensor, "objects 4"]
    right: tuple[Caption, ...]
    wrong: tuple[tuple[Caption, ...], ...]

    def __post_init__(self) -> None:
        if not len(self.boxes) == len(self.right) == len(self.wrong):
            raise InputError(
                f"Image {self.image!r} has {len(self.boxes)} objects, {len(self.right)} right captions and "
                f"{len(self.wrong)} lists of wrong ones. Give one of each for every object."
            )


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a detector found in an image when it was asked for one right caption and some wrong ones.

    ``captions`` has the right one first. ``scores`` are those of every box (xyxy, pixels) with every caption. A box
    scores as, and is labelled with, its best caption; of equally good ones the last, so that ties count against the
    right one.

    Raises:
        InputError: boxes, captions and scores do not fit each other, or a score is not a number.
    """

    image: str
    captions: tuple[Caption, ...]
    boxes: Float[Tensor, "found 4"]
    scores: Float[Tensor, "rows captions"]

    def __post_init__(self) -> None:
        if self.scores.shape != (len(self.boxes), len(self.captions)) or not self.captions:
            raise InputError(
                f"{self._what()} has {len(self.boxes)} boxes, {len(self.captions)} captions and scores of "
                f"{tuple(self.scores.shape)}. Give a score for every box and caption."
            )
        if bool(self.scores.isnan().any()):
            raise InputError(f"{self._what()} has a score that is not a number. Leave such boxes out.")

    def best(self) -> Float[Tensor, " found"]:
        """Return the score of every box."""
        return self.scores.amax(dim=1)

    def labels(self) -> list[Caption]:
        """Return the caption of every box."""
        last = len(self.captions) - 1
        return [self.captions[last - place] for place in self.scores.flip(1).argmax(dim=1).tolist()]

    def thinned(self) -> Answer:
        """Return it without boxes that overlap a better one, whatever the captions of the two."""
        kept = nms(self.boxes.float(), self.best().float(), OVERLAP)
        return Answer(self.image, self.captions, self.boxes[kept], self.scores[kept])

    def first(self, limit: int) -> Answer:
        """Return it with its best boxes alone, ``limit`` at most, best first."""
        kept = self.best().sort(descending=True, stable=True).indices[:limit]
        return Answer(self.image, self.captions, self.boxes[kept], self.scores[kept])

    def _what(self) -> str:
        return f"The answer for {self.captions[:1]} in image {self.image!r}"


class Asked:
    """The objects with enough wrong captions, and the answer that each has."""

    def __init__(self, objects: Sequence[Objects], answers: Sequence[Answer], negatives: int) -> None:
        if negatives < 1:
            raise InputError(f"negatives is {negatives}: ask among 1 wrong caption or more.")
        self._objects = objects
        self._negatives = negatives
        self._answers: dict[str, dict[Caption, Answer]] = {each.image: {} for each in objects}
        if len(self._answers) < len(objects):
            raise InputError(f"{len(objects)} images have {len(self._answers)} names. Give the objects of one at once.")
        wanted = {
            (each.image, right): wrong[:negatives]
            for each in objects
            for right, wrong in zip(each.right, each.wrong, strict=True)
            if len(wrong) >= negatives
        }
        for answer in answers:
            self._add(answer, wanted)
        places = [(place, row) for place, each in enumerate(objects) for row in range(len(each.right))]
        self._kept = [(place, row) for place, row in places if len(objects[place].wrong[row]) >= negatives]
        self.left_out = len(places) - len(self._kept)
        self.unasked = sum(answer is None for _, _, answer in self.objects())

    def objects(self) -> Iterator[tuple[int, int, Answer | None]]:
        """Yield the places of an object's image and of the object in it, and its answer."""
        for place, row in self._kept:
            image = self._objects[place]
            yield place, row, self._answers[image.image].get(image.right[row])

    def in_image(self, place: int) -> list[Answer]:
        """Return all answers of an image."""
        return list(self._answers[self._objects[place].image].values())

    def _add(self, answer: Answer, wanted: Mapping[tuple[str, Caption], tuple[Caption, ...]]) -> None:
        right, *wrong = answer.captions
        if (expected := wanted.get((answer.image, right))) is None:
            raise InputError(
                f"There is an answer for {right!r} in image {answer.image!r}, where no object has that caption and "
                f"{self._negatives} wrong ones. Give the answers for the objects that are measured."
            )
        if tuple(wrong) != expected:
            raise InputError(
                f"The answer for {right!r} in image {answer.image!r} is among the wrong captions {wrong}, and the "
                f"object's first {self._negatives} are {list(expected)}. Ask for those, in this order."
            )
        if right in self._answers[answer.image]:
            raise InputError(f"There are two answers for {right!r} in image {answer.image!r}. Give one.")
        self._answers[answer.image][right] = answer
