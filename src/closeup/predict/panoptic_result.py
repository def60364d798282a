"""A picture cut into segments, each with a word: things one by one, stuff all of a kind together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor

from closeup._types import IGNORE, ImageLike, LabelMap, Labels, Masks
from closeup.data.record import Record
from closeup.data.write_coco import write_coco_panoptic
from closeup.errors import InputError
from closeup.predict.provenance import Provenance
from closeup.predict.result import Arrays, LabelledResult, Regions
from closeup.viz import draw_segmentation, name_colours


@dataclass(frozen=True, slots=True, eq=False)
class PanopticResult(LabelledResult):
    """Segments that do not overlap: ``places`` has the number of each pixel's, IGNORE (-1) where there is none.

    ``labels`` and ``scores``, fused probabilities, are those of the segments; ``things`` marks which of ``names`` are
    things, each segment of which is one, and which are stuff, of which there is one segment a word.
    """

    image: ImageLike
    size: tuple[int, int]
    places: LabelMap
    labels: Labels
    scores: Float[Tensor, " segments"]
    names: tuple[str, ...]
    things: tuple[bool, ...]
    provenance: Provenance

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def words(self) -> tuple[str, ...]:
        """The word of every segment."""
        return tuple(self.names[label] for label in self.labels.tolist())

    @property
    def masks(self) -> Masks:
        """The segments as planes."""
        planes: Tensor = self.places[None] == torch.arange(len(self))[:, None, None]
        return planes

    @property
    def label_map(self) -> LabelMap:
        """The label of every pixel, IGNORE where there is no segment."""
        return torch.cat([self.labels, torch.tensor([IGNORE])])[self.places]

    def picture(self) -> PIL.Image.Image:
        """Return the image painted with the colours of the segments' words, each segment bordered and labelled."""
        colours = name_colours(self.names)
        texts = [f"{word} {score:.2f}" for word, score in zip(self.words, self.scores.tolist(), strict=True)]
        own = [colours[label] for label in self.labels.tolist()]
        return draw_segmentation(self.image, self.places, texts, colours=own)

    def labelled(self) -> Regions:
        """Return the masks, labels and scores of the segments."""
        return None, self.masks, self.labels, self.scores

    def arrays(self) -> Arrays:
        """Return ``places``, ``labels``, ``scores`` and ``things``."""
        tables = {name: getattr(self, name).numpy() for name in ("places", "labels", "scores")}
        return {**tables, "things": torch.tensor(self.things).numpy()}

    def record(self, number: int = 1) -> Record:
        """Return the segments as a record, as readers have them, under the name of the image's file or a number."""
        name = Path(self.image).name if isinstance(self.image, str | Path) else f"image-{number}"
        return Record(name, self.image, self.size, masks=self.masks, labels=self.labels)


def save_coco_panoptic(results: Iterable[PanopticResult], path: str | Path, masks: str | Path) -> Path:
    """Write results as a COCO panoptic file and a folder of PNGs, ``masks``, and return the path of the json.

    The form has no place for scores.

    Raises:
        InputError: there is no result, results have different names, or two images the same file name.
    """
    coming = iter(results)
    first = next(coming, None)
    if first is None:
        raise InputError("There is no result to write: no image could be used.")

    def record(number: int, result: PanopticResult) -> Record:
        if (result.names, result.things) != (first.names, first.things):
            raise InputError(f"Result {number - 1} has other names than result 0: one file holds one vocabulary.")
        return result.record(number)

    records = (record(number, result) for number, result in enumerate(chain([first], coming), start=1))
    return write_coco_panoptic(records, first.names, first.things, path, masks)
