"""Recipe ``detection``: a head learns to find boxes and to name them, on a tower that stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import PIL.Image
import torch
from jaxtyping import Float, Int
from PIL import ImageOps
from torch import Tensor, nn

from closeup._types import Boxes, Labels
from closeup.data.record import Reader, Record
from closeup.errors import DataError
from closeup.geometry import clip_boxes
from closeup.models.clip import Clip
from closeup.recipes.order import visited
from closeup.recipes.recipe import Recipe


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
        self._jitter, self._flip = jitter, flip

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return every parameter of the head."""
        return dict(self.module.named_parameters())

    def sample(self, position: int) -> Sample:
        """Return a canvas and the boxes on it whose words are learned."""
        record = self._reader[visited(position, len(self._reader), self._seed)]
        picture, (boxes, labels) = record.load(), self._known(record)
        rng = np.random.default_rng([self._seed, 4, position])
        if self._flip and rng.random() < 0.5:
            picture, boxes = mirrored(picture, boxes)
        if self._jitter is None:
            image, placement = self._clip.preprocess(picture, policy="longest-pad-corner", size=self._size)
            boxes = placement.boxes_to_canvas(boxes)
            width, height = (round(side) for side in placement.content[2:])
        else:
            scaled, boxes = rescaled(picture, boxes, self._size, float(rng.uniform(*self._jitter)), rng)
            width, height = scaled.size
            canvas = PIL.Image.new("RGB", (self._size, self._size))
            canvas.paste(scaled)
            image, _ = self._clip.preprocess(canvas, policy="longest-pad-corner", size=self._size)
        large = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(dim=1)
        return Sample(image, torch.tensor([height, width]), boxes[large], labels[large])

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


def mirrored(picture: PIL.Image.Image, boxes: Boxes) -> tuple[PIL.Image.Image, Boxes]:
    """Return a picture and its boxes with left and right exchanged."""
    left, top, right, bottom = boxes.unbind(dim=1)
    return ImageOps.mirror(picture), torch.stack([picture.width - right, top, picture.width - left, bottom], dim=1)


def rescaled(
    picture: PIL.Image.Image, boxes: Boxes, size: int, factor: float, rng: np.random.Generator
) -> tuple[PIL.Image.Image, Boxes]:
    """Return a picture whose longest side is ``factor`` times ``size``, cut at random to ``size``, and its boxes."""
    scale = factor * size / max(picture.size)
    width, height = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    left, top = (int(rng.integers(max(side - size, 0) + 1)) for side in (width, height))
    shown = (min(width, size), min(height, size))
    # Cutting before resizing spares the parts that are not seen.
    across, down = picture.width / width, picture.height / height
    seen = (left * across, top * down, (left + shown[0]) * across, (top + shown[1]) * down)
    scaled = picture.resize(shown, PIL.Image.Resampling.BICUBIC, box=seen)
    moved = boxes / boxes.new_tensor([across, down] * 2) - boxes.new_tensor([left, top] * 2)
    return scaled, clip_boxes(moved, shown[1], shown[0])
