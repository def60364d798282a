"""Regions of whole pictures to joint-space embeddings: opened, checked, grouped, encoded, pooled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from numbers import Integral
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from closeup._types import Boxes, DenseMap, Embeddings, ImageLike, Images, Masks
from closeup.data.images import open_image
from closeup.errors import InputError, suggest
from closeup.geometry import Placement
from closeup.models.preprocess import Size, sides_of
from closeup.models.routes import Route
from closeup.regions import (
    CropPolicy,
    as_boxes,
    as_masks,
    check_boxes,
    check_masks,
    crop_regions,
    grid_boxes,
    masks_to_cells,
    pool_boxes,
    pool_masks,
)
from closeup.regions.masked_crops import OVSEG, masked_crops

ENCODERS = ("dense", "crop", "masked-crop", "mask-prompt", "mask-token")
"""Region encoders: pool the dense map, encode the cut-out, encode the cut-out with its surroundings masked, and that
with learned tokens in their place; or a copy of the class token for each mask, which sees that mask alone."""

MASKED_CROPS = ("masked-crop", "mask-prompt")
"""Those that cut masks out."""

MASKED = (*MASKED_CROPS, "mask-token")
"""Those that need masks."""

BoxTable: TypeAlias = Tensor | np.ndarray | Sequence[Sequence[float]]
"""One image's boxes as a user may give them: anything that reads as rows of x0, y0, x1, y1."""

MaskStack: TypeAlias = Tensor | np.ndarray | Sequence[Tensor | np.ndarray]
"""One image's masks as a user may give them: anything that reads as planes of true and false."""

Item = TypeVar("Item")

CROP_POLICIES: Mapping[str, str | None] = MappingProxyType(
    {"pad": "longest-pad-centre", "squash": "squash", "own": None}
)
"""The preprocessing of each ``CropPolicy.shape``; None is the model's own."""


@runtime_checkable
class Encoder(Protocol):
    """What is needed of a Clip."""

    @property
    def dim(self) -> int: ...  # noqa: D102
    @property
    def joint_dim(self) -> int: ...  # noqa: D102
    @property
    def patch(self) -> int: ...  # noqa: D102
    @property
    def mean(self) -> tuple[float, float, float]: ...  # noqa: D102
    @property
    def std(self) -> tuple[float, float, float]: ...  # noqa: D102
    @property
    def image_size(self) -> Size: ...  # noqa: D102
    @property
    def device(self) -> torch.device: ...  # noqa: D102

    def encode_image(self, images: Images, *, normalize: bool = ...) -> Embeddings: ...  # noqa: D102
    def encode_masked(  # noqa: D102
        self, images: Images, masks: Bool[Tensor, "batch lines columns"], *, normalize: bool = ...
    ) -> Embeddings: ...
    def encode_mask_tokens(  # noqa: D102
        self, images: Images, cells: Sequence[Bool[Tensor, "_ rows cols"]], *, normalize: bool = ...
    ) -> list[Embeddings]: ...
    def encode_dense(self, images: Images, *, route: str | Route = ..., normalize: bool = ...) -> DenseMap: ...  # noqa: D102
    def preprocess(  # noqa: D102
        self, image: ImageLike, *, policy: str | None = ..., size: int | Size | None = ...
    ) -> tuple[Float[Tensor, "3 rows cols"], Placement]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """One opened picture with its checked regions."""

    picture: PIL.Image.Image
    boxes: Boxes | None
    masks: Masks | None

    def __len__(self) -> int:
        """Return the number of regions."""
        regions = self.boxes if self.boxes is not None else self.masks
        return 0 if regions is None else len(regions)


def encode_regions(
    clip: Encoder,
    images: Sequence[ImageLike] | ImageLike,
    *,
    boxes: Sequence[BoxTable] | BoxTable | None = None,
    masks: Sequence[MaskStack] | MaskStack | None = None,
    grid: tuple[int, int] | None = None,
    how: str = "dense",
    route: str | Route = "value",
    size: int | Size | None = None,
    crop: CropPolicy | None = None,
    batch: int = 8,
    normalize: bool = True,
) -> list[Embeddings]:
    """Return one embedding per region, one tensor per image.

    Args:
        clip: The model.
        images: One image or several.
        boxes: xyxy pixels of the original image; one table per image (for a single image the table itself).
        masks: Bool planes on the original image, one stack per image, likewise.
        grid: ``(rows, cols)`` equal cells of every image, row by row.
        how: ``dense`` pools the dense map, any number of regions from one pass over an image; ``crop`` encodes
            every region's cut-out; ``masked-crop`` too, with the surroundings filled; ``mask-prompt`` with the
            model's mask prompts in the place of patches that are all surroundings; ``mask-token`` gives each mask a
            class token that sees the patches it touches, any number of them in one pass over an image.
        route: As in ``encode_dense``; the others do not use it.
        size: Longest side of the images for ``dense``, input size of the crops, and of the images, squashed, for
            ``mask-token``; pixels (None: native).
        crop: How regions are cut out (None: as CLIPSelf's teacher does, and with masks as OVSeg does); its ``masked``
            is set by ``how``.
        batch: Images (of equal canvas) encoded at a time; eight times as many crops.
        normalize: Whether embeddings have unit length, or that which the tower gives them, as matchers want; those of
            ``dense`` are then means of a map that is not normalised either.

    For ``dense`` an image keeps its shape, each side rounded to whole patches, so that there is no pad that
    could enter a region, and only images of equal canvas share a batch: an image's embeddings do not depend
    on its company. A mask weighs every cell by the part of it that the mask covers.

    Raises:
        InputError: For regions of the wrong kind or number, for ``mask-prompt`` of a model without prompts, or with the
            index of the region that is outside its image, empty or not finite, and the image.
        ModelError: For ``mask-token`` of a model that does not read its image embedding off a class token.

    Source: ``dense`` is CLIPSelf's (arXiv 2310.01403) RoIAlign and mask pooling of the normalised map; ``crop``
    its teacher; ``masked-crop`` OVSeg's (arXiv 2210.04150); ``mask-token`` ODISE's (arXiv 2303.04803).
    """
    if how not in ENCODERS:
        raise InputError(f"Unknown region encoder {how!r}. {suggest(how, ENCODERS)}")
    check_batch_size(batch)
    regions = _opened(images, boxes, masks, grid, how)
    if how == "dense":
        return _encode_dense(clip, regions, route, size, batch, normalize)
    if how == "mask-token":
        return _encode_tokens(clip, regions, size, batch, normalize)
    if how not in MASKED:
        return _encode_crops(clip, regions, replace(crop or CropPolicy(), masked=False), size, 8 * batch, normalize)
    policy = replace(crop or OVSEG, masked=True)
    if how == "masked-crop" and policy.resize == "antialias":
        return _encode_crops(clip, regions, policy, size, 8 * batch, normalize)
    return _encode_masked(clip, regions, policy, size, 8 * batch, normalize, prompted=how == "mask-prompt")


def check_batch_size(batch: int) -> None:
    """Raise InputError unless at least one item is encoded at a time."""
    if batch < 1:
        raise InputError(f"batch is {batch}: encode at least 1 at a time.")


def _encode_dense(
    clip: Encoder,
    regions: Iterable[Regions],
    route: str | Route,
    size: int | Size | None,
    batch: int,
    normalize: bool,
) -> list[Embeddings]:
    done: dict[int, Embeddings] = {}
    waiting: defaultdict[Size, list[tuple[int, Regions, Tensor, Placement]]] = defaultdict(list)

    def encode(group: list[tuple[int, Regions, Tensor, Placement]]) -> None:
        maps = clip.encode_dense(torch.stack([tensor for _, _, tensor, _ in group]), route=route, normalize=normalize)
        for features, (index, region, _, placement) in zip(maps, group, strict=True):
            pooled = _pool(features, region, placement, clip.patch)
            done[index] = _unit(pooled, clip.joint_dim) if normalize else pooled
        group.clear()

    for index, region in enumerate(regions):
        tensor, placement = clip.preprocess(region.picture, policy="fit", size=size)
        group = waiting[placement.canvas]
        group.append((index, region, tensor, placement))
        if len(group) == batch:
            encode(group)
    for group in waiting.values():
        if group:
            encode(group)
    return [done[index] for index in range(len(done))]


def _pool(features: Float[Tensor, "dim rows cols"], region: Regions, placement: Placement, patch: int) -> Embeddings:
    if region.masks is not None:
        cells = masks_to_cells(region.masks, placement, patch).to(features.device)
        return pool_masks(features[None], [cells])[0]
    boxes = placement.boxes_to_canvas(region.boxes) / patch if region.boxes is not None else torch.zeros(0, 4)
    left, top, right, bottom = (edge / patch for edge in placement.content)
    return pool_boxes(features[None], [boxes], extents=[(left, top, right, bottom)])[0]


def _unit(embeddings: Embeddings, joint: int) -> Embeddings:
    """Bring the first ``joint`` numbers of each embedding to length one, and leave those behind them alone."""
    own, more = embeddings.tensor_split([joint], dim=1)
    return torch.cat([F.normalize(own, dim=1), more], dim=1)


def _encode_crops(
    clip: Encoder,
    regions: Iterable[Regions],
    policy: CropPolicy,
    size: int | Size | None,
    batch: int,
    normalize: bool,
) -> list[Embeddings]:
    counts: list[int] = []

    def tensors() -> Iterator[Tensor]:
        for region in regions:
            counts.append(len(region))
            for cut in crop_regions(region.picture, region.boxes, region.masks, policy, mean=clip.mean):
                yield clip.preprocess(cut, policy=CROP_POLICIES[policy.shape], size=size)[0]

    parts = [clip.encode_image(torch.stack(chunk), normalize=normalize) for chunk in _chunks(tensors(), batch)]
    embeddings = torch.cat(parts) if parts else torch.zeros(0, clip.dim, device=clip.device)
    return list(torch.split(embeddings, counts))


def _encode_masked(
    clip: Encoder,
    regions: Iterable[Regions],
    policy: CropPolicy,
    size: int | Size | None,
    batch: int,
    normalize: bool,
    *,
    prompted: bool,
) -> list[Embeddings]:
    counts: list[int] = []
    target = clip.image_size if size is None else sides_of(size)
    red, green, blue = (-mean / std for mean, std in zip(clip.mean, clip.std, strict=True))

    def cuts() -> Iterator[tuple[Tensor, Tensor]]:
        for region in regions:
            counts.append(len(region))
            if region.masks is None or not len(region):
                continue
            image, _ = clip.preprocess(region.picture, policy="native")
            for start in range(0, len(region), batch):
                some = slice(start, start + batch)
                boxes = None if region.boxes is None else region.boxes[some]
                found = masked_crops(image, region.masks[some], target, policy, boxes=boxes, black=(red, green, blue))
                yield from zip(*found, strict=True)

    parts = []
    for chunk in _chunks(cuts(), batch):
        crops, shown = (torch.stack(column) for column in zip(*chunk, strict=True))
        if prompted:
            parts.append(clip.encode_masked(crops, shown, normalize=normalize))
        else:
            parts.append(clip.encode_image(crops, normalize=normalize))
    embeddings = torch.cat(parts) if parts else torch.zeros(0, clip.dim, device=clip.device)
    return list(torch.split(embeddings, counts))


def _encode_tokens(
    clip: Encoder, regions: Iterable[Regions], size: int | Size | None, batch: int, normalize: bool
) -> list[Embeddings]:
    found: list[Embeddings] = []
    for group in _chunks(regions, batch):
        placed = [clip.preprocess(region.picture, policy="squash", size=size) for region in group]
        cells = [
            masks_to_cells(region.masks, placement, clip.patch, policy="any") > 0
            for region, (_, placement) in zip(group, placed, strict=True)
            if region.masks is not None
        ]
        found += clip.encode_mask_tokens(torch.stack([tensor for tensor, _ in placed]), cells, normalize=normalize)
    return found


def _opened(
    images: Sequence[ImageLike] | ImageLike,
    boxes: Sequence[BoxTable] | BoxTable | None,
    masks: Sequence[MaskStack] | MaskStack | None,
    grid: tuple[int, int] | None,
    how: str,
) -> Iterator[Regions]:
    """Check what can be checked at once; open and check the images one by one, as they are asked for."""
    if isinstance(images, Tensor):
        raise InputError(
            "images is a tensor: give paths, PIL pictures or uint8 arrays. For tensors that preprocess made, "
            "Clip.encode_dense and closeup.regions.pool_boxes or pool_masks do the same."
        )
    _check_grid(grid)
    single = isinstance(images, (str, Path, PIL.Image.Image, np.ndarray))
    listed: Sequence[ImageLike] = [images] if single else images  # type: ignore[list-item, assignment]
    given = [name for name, value in (("boxes", boxes), ("masks", masks), ("grid", grid)) if value is not None]
    allowed, wanted = [["boxes"], ["masks"], ["grid"]], "boxes, masks or grid"
    if how in MASKED_CROPS:
        allowed, wanted = [["masks"], ["boxes", "masks"]], "masks (and boxes, if they are not the masks' own)"
    elif how in MASKED:
        allowed, wanted = [["masks"]], "masks"
    if given not in allowed:
        raise InputError(f"The region encoder {how!r} got {' and '.join(given) or 'no regions'}. Give {wanted}.")
    per_image = {
        name: _per_image(value, single, len(listed), name)
        for name, value in (("boxes", boxes), ("masks", masks))
        if value is not None
    }
    return _checked(listed, per_image, grid)


def _check_grid(grid: object) -> None:
    pair = isinstance(grid, Sequence) and len(grid) == 2 and all(isinstance(count, Integral) for count in grid)
    if grid is not None and not pair:
        raise InputError(f"grid is {grid!r}: give (rows, cols), two whole numbers.")


def _per_image(value: object, single: bool, count: int, name: str) -> Sequence[object]:
    if single:
        return [value]
    rows = list(value) if isinstance(value, (Tensor, np.ndarray)) and value.ndim else value
    if not isinstance(rows, Sequence):
        raise InputError(f"{name} is of type {type(value).__name__}: give a list, one entry an image, empty ones too.")
    if len(rows) != count:
        raise InputError(f"{name} has {len(rows)} entries for {count} images: give one entry an image, empty ones too.")
    return rows


def _checked(
    images: Sequence[ImageLike], per_image: dict[str, Sequence[object]], grid: tuple[int, int] | None
) -> Iterator[Regions]:
    for index, image in enumerate(images):
        what = f"image {index} ({image})" if isinstance(image, (str, Path)) else f"image {index}"
        picture = open_image(image)
        boxes = masks = None
        if "boxes" in per_image:
            boxes = as_boxes(per_image["boxes"][index], what)
            check_boxes(boxes, picture.height, picture.width, what)
        if "masks" in per_image:
            masks = as_masks(per_image["masks"][index], what)
            check_masks(masks, picture.height, picture.width, what)
        if grid is not None:
            boxes = grid_boxes(*grid, picture.height, picture.width)
        yield Regions(picture, boxes, masks)


def _chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    stream = iter(items)
    while chunk := list(islice(stream, size)):
        yield chunk
