"""Pictures become tensors: six ways to bring an image to a size, and where each puts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, TypeAlias

import PIL.Image
from jaxtyping import Float
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from closeup._types import ImageLike
from closeup.data.images import open_image
from closeup.errors import InputError, ModelError, suggest
from closeup.geometry import Placement

Size: TypeAlias = tuple[int, int]
"""Height and width in pixels."""

POLICIES: dict[str, str] = {
    "squash": "stretched to the size, aspect ratio lost (SigLIP)",
    "shortest-crop": "shortest side to the size, centre cut out (CLIP's own evaluation)",
    "longest-pad-centre": "longest side to the size, black on both sides (CLIPSelf's teacher crops)",
    "longest-pad-corner": "longest side to the size, black right and below (CLIPSelf's student and evaluation)",
    "longest": "longest side to the size, nothing added",
    "fit": "longest side to the size, each side rounded to whole patches: no pad anywhere",
    "native": "not resized",
}
"""What each policy does. Resizing is PIL's, antialiased; black is put in before normalisation."""

OPEN_CLIP_POLICIES = {"shortest": "shortest-crop", "squash": "squash", "longest": "longest-pad-centre"}
"""open_clip's ``resize_mode`` in our names."""


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How a model wants its images: size, interpolation, mean and deviation of each channel."""

    size: Size
    mean: tuple[float, float, float] = OPENAI_DATASET_MEAN
    std: tuple[float, float, float] = OPENAI_DATASET_STD
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"

    @classmethod
    def from_config(cls, size: Size, config: Mapping[str, Any]) -> Preprocess:
        """Read open_clip's ``preprocess_cfg``, OpenAI's where it is silent; ModelError for an unknown resize mode."""
        known: dict[str, Any] = {name: config[name] for name in ("interpolation", "resize_mode") if config.get(name)}
        if (mode := known.get("resize_mode", "shortest")) not in OPEN_CLIP_POLICIES:
            raise ModelError(
                f"The model's preprocess_cfg has the resize_mode {mode!r}. {suggest(mode, OPEN_CLIP_POLICIES)}"
            )
        channels: dict[str, Any] = {name: tuple(config[name]) for name in ("mean", "std") if config.get(name)}
        return cls(size=size, **known, **channels)

    @property
    def policy(self) -> str:
        """The policy that the model was trained to see, open_clip's own."""
        return OPEN_CLIP_POLICIES[self.resize_mode]

    def __call__(
        self, image: ImageLike, *, policy: str, size: int | Size | None = None, patch: int = 1
    ) -> tuple[Float[Tensor, "3 rows cols"], Placement]:
        """Return the normalised tensor, and where the original image lies on it.

        ``size`` is a side, or height and width, in pixels (None: the model's own). ``patch`` matters to
        the policy "fit" alone. Raises InputError for an unknown policy or a size below one pixel.
        """
        if policy not in POLICIES:
            raise InputError(f"Unknown preprocessing policy {policy!r}. {suggest(policy, POLICIES)}")
        picture = open_image(image)
        target = self.size if size is None else sides_of(size)
        resized = resized_size((picture.height, picture.width), target, policy, patch)
        canvas = resized if policy in ("longest", "fit", "native") else target
        placement = _place((picture.height, picture.width), resized, canvas, policy)
        return self._tensor(self._resize(picture, resized), placement), placement

    def _resize(self, picture: PIL.Image.Image, size: Size) -> PIL.Image.Image:
        if size == (picture.height, picture.width):
            return picture
        mode = InterpolationMode.BILINEAR if self.interpolation == "bilinear" else InterpolationMode.BICUBIC
        resized: PIL.Image.Image = TF.resize(picture, list(size), interpolation=mode)
        return resized

    def _tensor(self, picture: PIL.Image.Image, placement: Placement) -> Float[Tensor, "3 height width"]:
        """Cut or pad the resized picture to the canvas, then normalise it."""
        pixels = TF.to_tensor(picture)
        pixels = TF.crop(pixels, -int(placement.top), -int(placement.left), *placement.canvas)
        normalised: Tensor = TF.normalize(pixels, list(self.mean), list(self.std))
        return normalised


def renormalised(
    images: Float[Tensor, "batch 3 height width"], given: Preprocess, wanted: Preprocess
) -> Float[Tensor, "batch 3 height width"]:
    """Return pictures that are normalised for one model as another wants them."""
    if (wanted.mean, wanted.std) == (given.mean, given.std):
        return images

    def channels(values: Sequence[float]) -> Tensor:
        return images.new_tensor(list(values)).view(3, 1, 1)

    return (images * channels(given.std) + channels(given.mean) - channels(wanted.mean)) / channels(wanted.std)


def resized_size(original: Size, target: Size, policy: str, patch: int = 1) -> Size:
    """Return the height and width that ``policy`` resizes an image to, before any cut or pad."""
    if policy == "native":
        return original
    if policy == "squash":
        return target
    ratios = original[0] / target[0], original[1] / target[1]
    if policy == "shortest-crop":
        if target[0] == target[1]:  # torchvision rounds the longer side down
            short = min(original)
            return int(target[0] * original[0] / short), int(target[0] * original[1] / short)
        ratio = min(ratios)
    else:
        ratio = max(ratios)
    unit = patch if policy == "fit" else 1
    height, width = (max(round(side / ratio / unit), 1) * unit for side in original)
    return height, width


def _place(original: Size, resized: Size, canvas: Size, policy: str) -> Placement:
    free = canvas[0] - resized[0], canvas[1] - resized[1]
    if policy == "shortest-crop":
        top, left = (-round(-space / 2) for space in free)
    elif policy == "longest-pad-centre":
        top, left = (space // 2 for space in free)
    else:
        top, left = 0, 0
    return Placement(original, canvas, float(left), float(top), float(resized[1]), float(resized[0]))


def sides_of(size: object) -> Size:
    """Return height and width in pixels of a side, or of both; InputError for anything else, or below one pixel."""
    sides = (size, size) if isinstance(size, Integral) else size
    if not (isinstance(sides, Sequence) and len(sides) == 2 and all(isinstance(side, Integral) for side in sides)):
        raise InputError(f"The image size {size!r} is not a side or (height, width) in whole pixels.")
    if min(sides) < 1:
        raise InputError(f"The image size {size} is below one pixel. Give a side, or (height, width), in pixels.")
    return int(sides[0]), int(sides[1])
