"""Recipe ``detection``: a head learns to find boxes and to name them, on a tower that stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import PIL.Image
import torch
from jaxtyping import Bool, Float, Int
from PIL import ImageOps
from torch import Tensor, nn

from closeup._types import Boxes, Labels, Masks
from closeup.data.map_regions import with_map_regions
from closeup.data.record import Reader, Record
from closeup.errors import DataError
from closeup.models.clip import Clip
from closeup.recipes.detection_config import DetectionConfig
from closeup.recipes.head_recipe import Headed, HeadRecipe
from closeup.recipes.order import visited
from closeup.recipes.view import View, drawn_view, mirrored


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One visit to a picture: a canvas, the height and width that the picture has on it, and its boxes there.

    ``masks`` are those of the boxes on the canvas, None where they are not learned from.
    """

    image: Float[Tensor, "3 height width"]
    size: Int[Tensor, 2]
    boxes: Boxes
    labels: Labels
    masks: Bool[Tensor, "count height width"] | None = None


class Detection(HeadRecipe):
    """Boxes of known words teach a head, whose ``forward`` gives the losses of a batch of canvases.

    ``words`` says for each of the reader's labels which of the head's words it is, None for those that are not learned:
    their boxes are never seen, as if nobody had drawn them. Pictures lie in the top left corner of a canvas of ``size``
    pixels, half of them mirrored; with ``jitter`` they are first made larger or smaller by a factor drawn from it, and
    cut. With ``masks`` the batch has the boxes' masks on the canvas, and of a label map every word's pixels. ``paces``
    are factors on the rate by the beginnings of parameters' names, and those parameters do not decay. The head's
    running means are those of one device, so a batch is never computed in parts.

    Raises:
        DataError: no pictures, or records without boxes and labels, or without the masks that are asked for.

    Source of the augmentation: ``wusize/CLIPSelf`` ``F-ViT/configs/ov_coco`` (large-scale jitter, crop, flip).
    """

    name: ClassVar[str] = "detection"
    lesson: ClassVar[str] = "a box"

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
        masks: bool = False,
        paces: Mapping[str, float] | None = None,
        seed: int = 0,
        probe: Callable[[], Mapping[str, float]] | None = None,
    ) -> None:
        if len(reader) == 0:
            raise DataError("The data set is empty. Give pictures with boxes.")
        super().__init__(head, paces, probe)
        self._clip, self._reader, self._size, self._seed = clip, reader, size, seed
        self._words = torch.tensor([-1 if word is None else word for word in words])
        self._jitter, self._flip, self._masks = jitter, flip, masks

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Return whether weight decay applies: to matrices at the full pace."""
        return super().decays(name, parameter) and not name.startswith(tuple(self.paces))

    def sample(self, position: int) -> Sample:
        """Return a canvas and the boxes on it whose words are learned."""
        record = self._reader[visited(position, len(self._reader), self._seed)]
        picture, (boxes, labels, masks) = record.load(), self._known(record)
        rng = np.random.default_rng([self._seed, 4, position])
        if self._flip and rng.random() < 0.5:
            picture, boxes, masks = ImageOps.mirror(picture), mirrored(boxes, picture.width), masks.flip(dims=[2])
        if self._jitter is None:
            image, placement = self._clip.preprocess(picture, policy="longest-pad-corner", size=self._size)
            view = View((0, 0, *picture.size), (round(placement.content[2]), round(placement.content[3])))
        else:
            view = drawn_view(picture.size, self._size, float(rng.uniform(*self._jitter)), rng)
            canvas = PIL.Image.new("RGB", (self._size, self._size))
            canvas.paste(view.picture(picture))
            image, _ = self._clip.preprocess(canvas, policy="longest-pad-corner", size=self._size)
        boxes, (width, height) = view.boxes(boxes), view.shown
        large = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(dim=1)
        planes = view.masks(masks[large], self._size) if self._masks else None
        return Sample(image, torch.tensor([height, width]), boxes[large], labels[large], planes)

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Stack canvases and lay their boxes side by side, with the number of each one's picture."""
        counts = torch.tensor([len(sample.boxes) for sample in samples])
        masks = [sample.masks for sample in samples if sample.masks is not None]
        return ({"masks": torch.cat(masks)} if masks else {}) | {
            "images": torch.stack([sample.image for sample in samples]),
            "sizes": torch.stack([sample.size for sample in samples]),
            "boxes": torch.cat([sample.boxes for sample in samples]),
            "labels": torch.cat([sample.labels for sample in samples]),
            "owners": torch.arange(len(samples)).repeat_interleave(counts),
        }

    def teaches(self, sample: Sample) -> bool:
        """Return whether there is a box of a learned word."""
        return len(sample.boxes) > 0

    def _known(self, record: Record) -> tuple[Boxes, Labels, Masks]:
        """Return the boxes that are learned from, their words, and their masks (empty ones unless asked for)."""
        if self._masks and record.masks is None and record.label_map is not None:
            record = with_map_regions(record)
        if record.boxes is None or record.labels is None:
            raise DataError(f"Record {record.id!r} has no labelled boxes. Give a data set that has them.")
        boxes, labels = record.boxes.float(), record.labels
        # A label below zero is one to ignore.
        words = torch.where(labels >= 0, self._words[labels.clamp(min=0)], -1)
        kept = (words >= 0) & boxes.isfinite().all(dim=1)
        if not self._masks:
            return boxes[kept], words[kept], torch.zeros(int(kept.sum()), 1, 1, dtype=torch.bool)
        if record.masks is None:
            raise DataError(f"Record {record.id!r} has no masks. Give a data set that has them, or learn from boxes.")
        return boxes[kept], words[kept], record.masks[kept]


def boxes_teach(
    clip: Clip, made: Headed, reader: Reader, words: Sequence[int | None], config: DetectionConfig, seed: int
) -> Detection:
    """Return the recipe in which a data set's boxes, and the masks if the head outlines, teach a new head."""
    return Detection(
        clip,
        made.head,
        reader,
        words,
        size=config.size,
        jitter=(config.jitter[0], config.jitter[1]) if config.jitter else None,
        flip=config.flip,
        masks=made.outlines,
        paces=made.paces,
        seed=seed,
    )
