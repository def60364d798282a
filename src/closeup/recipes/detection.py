"""Recipe ``detection``: a head learns to find boxes and to name them, on a tower that stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import PIL.Image
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat

from closeup._types import Boxes, Labels
from closeup.data.record import Reader, Record
from closeup.errors import DataError
from closeup.models.clip import Clip
from closeup.recipes.order import visited
from closeup.recipes.recipe import Recipe

JITTER = (0.1, 2.0)
"""Sizes of a picture over that of the canvas, in the official large-scale jitter."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One visit to a picture: a canvas, the height and width that the picture has on it, and its boxes there."""

    image: Float[Tensor, "3 height width"]
    size: Int[Tensor, 2]
    boxes: Boxes
    labels: Labels


class Detection(Recipe):
    """Boxes of known words teach a head, whose ``forward`` gives the losses of a batch of canvases.

    ``words`` says for each of the reader's labels which of the head's words it is, None for those that are not learned:
    their boxes are never seen, as if nobody had drawn them. Pictures lie in the top left corner of a canvas of ``size``
    pixels, half of them mirrored; with ``jitter`` they are first made larger or smaller by a factor drawn from it, and
    cut. The head's running means are those of one device, so a batch is never computed in parts.

    Raises:
        DataError: no pictures, or records without boxes and labels.

    Source of the augmentation: ``wusize/CLIPSelf`` ``F-ViT/configs/ov_coco`` (large-scale jitter, crop, flip).
    """

    name: ClassVar[str] = "detection"
    divisible: ClassVar[bool] = False

    def __init__(
        self,
        clip: Clip,
        head: nn.Module,
        reader: Reader,
        words: Sequence[int | None],
        *,
        size: int,
        jitter: tuple[float, float] | None = None,
        flip: bool = True,
        seed: int = 0,
        probe: Callable[[], Mapping[str, float]] | None = None,
    ) -> None:
        if len(reader) == 0:
            raise DataError("The data set is empty. Give pictures with boxes.")
        self.module = head
        self._clip, self._reader, self._size, self._seed, self._probe = clip, reader, size, seed, probe
        self._words = torch.tensor([-1 if word is None else word for word in words])
        steps: list[nn.Module] = []
        if jitter is not None:
            steps = [v2.ScaleJitter((size, size), jitter), v2.RandomCrop((size, size), pad_if_needed=True)]
        if flip:
            steps.append(v2.RandomHorizontalFlip())
        self._augment = v2.Compose(steps) if steps else None

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return every parameter of the head."""
        return dict(self.module.named_parameters())

    def sample(self, position: int) -> Sample:
        """Return a canvas and the boxes on it whose words are learned."""
        record = self._reader[visited(position, len(self._reader), self._seed)]
        picture, (boxes, labels) = record.load(), self._known(record)
        if self._augment is not None:
            picture, boxes = self._augmented(picture, boxes, position)
        image, placement = self._clip.preprocess(picture, policy="longest-pad-corner", size=self._size)
        extent = placement.boxes_to_canvas(torch.tensor([[0.0, 0.0, picture.width, picture.height]]))[0]
        boxes = placement.boxes_to_canvas(boxes)
        large = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(dim=1)
        return Sample(image, extent[[3, 2]].round().long(), boxes[large], labels[large])

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Stack canvases and lay their boxes side by side, with the number of each one's picture."""
        counts = torch.tensor([len(sample.boxes) for sample in samples])
        return {
            "images": torch.stack([sample.image for sample in samples]),
            "sizes": torch.stack([sample.size for sample in samples]),
            "boxes": torch.cat([sample.boxes for sample in samples]),
            "labels": torch.cat([sample.labels for sample in samples]),
            "owners": torch.arange(len(samples)).repeat_interleave(counts),
        }

    def evaluate(self) -> dict[str, float]:
        """Return what the probe measures."""
        return dict(self._probe()) if self._probe is not None else {}

    def _known(self, record: Record) -> tuple[Boxes, Labels]:
        if record.boxes is None or record.labels is None:
            raise DataError(f"Record {record.id!r} has no labelled boxes. Give a data set that has them.")
        boxes, labels = record.boxes.float(), record.labels
        # A label below zero is one to ignore.
        words = torch.where(labels >= 0, self._words[labels.clamp(min=0)], -1)
        kept = (words >= 0) & boxes.isfinite().all(dim=1)
        return boxes[kept], words[kept]

    def _augmented(self, picture: PIL.Image.Image, boxes: Boxes, position: int) -> tuple[PIL.Image.Image, Boxes]:
        where = BoundingBoxes(boxes, format=BoundingBoxFormat.XYXY, canvas_size=(picture.height, picture.width))
        with torch.random.fork_rng(devices=[]):  # torchvision's transforms know no other generator
            torch.manual_seed(int(np.random.default_rng([self._seed, 4, position]).integers(2**62)))
            picture, where = self._augment(picture, where)  # type: ignore[misc]  # there is one here
        return picture, where.as_subclass(Tensor)
