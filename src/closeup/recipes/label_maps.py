"""Recipe ``denseclip``: a head learns which word every pixel is, from label maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import PIL.Image
import torch
from jaxtyping import Float, Int
from PIL import ImageOps
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from closeup._types import IGNORE, LabelMap
from closeup.data.map_regions import label_map_of
from closeup.data.record import Reader, Record
from closeup.errors import DataError
from closeup.models.clip import Clip
from closeup.recipes.head_recipe import Headed, HeadRecipe
from closeup.recipes.label_maps_config import LabelMapConfig
from closeup.recipes.order import visited
from closeup.recipes.recipe import Batch
from closeup.recipes.view import View, drawn_cut

DRAWS = 10
"""Cuts that are tried until no class has too much of one."""

LONGEST = 4.0
"""A picture's longest side at most, over what its shortest would be."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One visit to a picture: a canvas, the height and width that the picture has on it, and each pixel's word."""

    image: Float[Tensor, "3 side side"]
    size: Int[Tensor, 2]
    labels: Int[Tensor, "side side"]


class LabelMapRecipe(HeadRecipe):
    """Label maps, or labelled masks, teach a head, whose ``forward`` gives the losses of a batch of canvases.

    ``words`` says for each of the reader's labels which of the head's words it is, None for those that are not learned:
    their pixels take no part, as if nobody had labelled them. A picture is resized so that its shortest side is the
    canvas's times a factor drawn from ``jitter``, cut at random to the canvas, mirrored half of the time, and changed
    in its colours; it lies in the top left corner, and the rest is the mean colour. ``paces`` are factors on the rate
    by the beginnings of parameters' names. The head's parameters that ask for gradients learn.

    Raises:
        DataError: no pictures, or (when its record is read) neither a label map nor labelled masks, or a label that has
            no name.

    Source: ``raoyongming/DenseCLIP`` ``segmentation/configs``, whose pictures MMSegmentation prepares.
    """

    name: ClassVar[str] = "denseclip"
    lesson: ClassVar[str] = "a labelled pixel"

    def __init__(
        self,
        clip: Clip,
        head: nn.Module,
        reader: Reader,
        words: Sequence[int | None],
        *,
        config: LabelMapConfig,
        paces: Mapping[str, float] | None = None,
        seed: int = 0,
        probe: Callable[[], Mapping[str, float]] | None = None,
    ) -> None:
        if len(reader) == 0:
            raise DataError("The data set is empty. Give pictures with label maps.")
        super().__init__(head, paces, probe)
        self._clip, self._reader, self._config, self._seed = clip, reader, config, seed
        # The last entry is that of IGNORE, which is -1.
        self._words = torch.tensor([IGNORE if word is None else word for word in (*words, None)])

    def terms(self, batch: Batch) -> int:
        """Return the number of labelled pixels, of which processes may have more or fewer."""
        return int((batch["labels"] != IGNORE).sum())

    def sample(self, position: int) -> Sample:
        """Return a canvas and the words of its pixels."""
        record = self._reader[visited(position, len(self._reader), self._seed)]
        picture, labels = record.load(), self._known(record)
        rng = np.random.default_rng([self._seed, 6, position])
        view = self._view(picture.size, labels, rng)
        picture, labels = view.picture(picture), view.labels(labels)
        if self._config.flip and rng.random() < 0.5:
            picture, labels = ImageOps.mirror(picture), labels.flip(dims=[1])
        if self._config.colours:
            picture = distorted(picture, int(rng.integers(2**63)))
        image, _ = self._clip.preprocess(picture, policy="native")
        missing = (0, self._config.size - picture.width, 0, self._config.size - picture.height)
        size = torch.tensor([picture.height, picture.width])
        # Zero is the mean colour of a normalised picture.
        return Sample(F.pad(image, missing), size, F.pad(labels, missing, value=IGNORE))

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Stack canvases and labels."""
        return {
            "images": torch.stack([sample.image for sample in samples]),
            "sizes": torch.stack([sample.size for sample in samples]),
            "labels": torch.stack([sample.labels for sample in samples]),
        }

    def teaches(self, sample: Sample) -> bool:
        """Return whether there is a pixel of a learned word."""
        return bool((sample.labels != IGNORE).any())

    def _known(self, record: Record) -> LabelMap:
        """Return the word of every pixel."""
        labels = label_map_of(record)
        names = len(self._words) - 1
        strange = labels[(labels < IGNORE) | (labels >= names)]
        if len(strange):
            raise DataError(f"Record {record.id!r} has the label {int(strange[0])}, but there are {names} names.")
        return self._words[labels]

    def _view(self, picture: tuple[int, int], labels: LabelMap, rng: np.random.Generator) -> View:
        """Return a cut in which no word has more than its share, or the last of those that were tried."""
        config = self._config
        shortest = config.size * float(rng.uniform(*config.jitter))
        scale = min(shortest / min(picture), LONGEST * shortest / max(picture))
        view = drawn_cut(picture, scale, config.size, rng)
        for _ in range(DRAWS - 1):
            if config.max_share == 1 or 0 < largest_share(view.labels(labels)) <= config.max_share:
                break
            view = drawn_cut(picture, scale, config.size, rng)
        return view


def largest_share(labels: LabelMap) -> float:
    """Return the share of the most frequent label in all pixels that have one; 0 where none has."""
    counts = labels[labels != IGNORE].bincount()
    return float(counts.max() / counts.sum()) if len(counts) else 0.0


def distorted(picture: PIL.Image.Image, seed: int) -> PIL.Image.Image:
    """Return a picture with its colours changed, in a way that the seed alone decides."""
    with torch.random.fork_rng(devices=[]):
        # Not `torch.manual_seed`, which would touch the accelerators' chance too.
        torch.default_generator.manual_seed(seed)
        changed: PIL.Image.Image = _Distort()(picture)
    return changed


class _Distort(v2.RandomPhotometricDistort):  # type: ignore[misc]  # torchvision is untyped
    """SSD's changes of colour within MMSegmentation's ranges, which leaves every channel in its place."""

    def __init__(self) -> None:
        # There the hue moves by up to 18 of OpenCV's 180 values.
        super().__init__(hue=(-0.1, 0.1))

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Return what is drawn for one picture."""
        return {**super().make_params(flat_inputs), "channel_permutation": None}


def label_maps_teach(
    clip: Clip, made: Headed, reader: Reader, words: Sequence[int | None], config: LabelMapConfig, seed: int
) -> LabelMapRecipe:
    """Return the recipe in which a data set's label maps teach a new head."""
    return LabelMapRecipe(clip, made.head, reader, words, config=config, paces=made.paces, seed=seed)
