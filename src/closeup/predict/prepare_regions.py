"""One record made ready for an evaluation of regions: what the model's inputs are, before the model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TypeAlias

import PIL.Image
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from closeup._types import IGNORE, Boxes, Labels, Masks
from closeup.data.record import Record
from closeup.errors import DataError
from closeup.evaluate import RegionProtocol
from closeup.geometry import masks_to_boxes
from closeup.models.clip import Clip
from closeup.models.encode_regions import CROP_POLICIES, MASKED_CROPS
from closeup.models.preprocess import Size
from closeup.regions import CropPolicy, crop_regions, masks_to_cells
from closeup.regions.masked_crops import masked_crops

PREPROCESSING = {"official": ("longest-pad-corner", "official"), "fit": ("fit", "area")}
"""Preprocessing policy and mask policy of each canvas.

``official``: the image in the corner of a black square, masks shrunk to the grid as CLIPSelf does, and the pad
takes part in RoIAlign at the border; ``fit``: no pad, and masks weigh each cell by the part that they cover.
"""

Crops: TypeAlias = Float[Tensor, "_ 3 _ _"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is wanted of every record."""

    how: Collection[str]
    protocol: RegionProtocol
    things: Bool[Tensor, " words"]
    size: int | Size
    policy: str
    mask_policy: str


@dataclass(frozen=True, slots=True, eq=False)
class DenseInput:
    """One image for the dense map; its boxes are in cells of the map, its masks weights of the cells."""

    image: Float[Tensor, "3 height width"]
    boxes: Boxes
    masks: Float[Tensor, "count rows cols"] | None
    labels: Labels


@dataclass(frozen=True, slots=True, eq=False)
class TokenInput:
    """One image at the model's own size, and which of its cells each mask touches."""

    image: Float[Tensor, "3 height width"]
    cells: Bool[Tensor, "count rows cols"]
    labels: Labels


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A record's regions that count, for each region encoder, and how many the protocol left out."""

    labels: Labels
    left_out: int = 0
    dense: DenseInput | None = None
    crops: dict[str, Crops] = field(default_factory=dict)
    shown: Bool[Tensor, "_ _ _"] | None = None
    """The mask on every masked crop."""
    tokens: TokenInput | None = None


def prepare(clip: Clip, record: Record, plan: Plan) -> Prepared:
    """Choose the regions that count and make the model's inputs of them, all on the CPU.

    Raises:
        DataError: where the record has regions without labels.
    """
    if record.boxes is None and record.masks is None:
        return Prepared(torch.zeros(0, dtype=torch.long))
    if record.labels is None:
        raise DataError(f"Record {record.id!r} has regions without labels: there is nothing to compare words with.")
    boxes, labels = _boxes(record, plan.things[record.labels.clamp(min=0)]), record.labels
    kept = plan.protocol.select(boxes)
    left_out = len(boxes) - len(kept)
    kept = kept[labels[kept] != IGNORE]
    boxes, labels = boxes[kept], labels[kept]
    masks = None if record.masks is None else record.masks[kept]
    if not len(kept):
        return Prepared(labels, left_out)
    picture = record.load()
    dense = _dense_input(clip, picture, boxes, masks, labels, plan) if "dense" in plan.how else None
    crops = _crops(clip, picture, boxes, plan.things[labels], plan)
    wanted = [how for how in MASKED_CROPS if how in plan.how]
    if masks is None:
        return Prepared(labels, left_out, dense, crops)
    tokens = _token_input(clip, picture, masks, labels) if "mask-token" in plan.how else None
    if not wanted:
        return Prepared(labels, left_out, dense, crops, tokens=tokens)
    whole, _ = clip.preprocess(picture, policy="native")
    cut, shown = masked_crops(whole, masks, clip.image_size)
    return Prepared(labels, left_out, dense, crops | dict.fromkeys(wanted, cut), shown, tokens)


def _dense_input(
    clip: Clip, picture: PIL.Image.Image, boxes: Boxes, masks: Masks | None, labels: Labels, plan: Plan
) -> DenseInput:
    image, placement = clip.preprocess(picture, policy=plan.policy, size=plan.size)
    cells = None if masks is None else masks_to_cells(masks, placement, clip.patch, policy=plan.mask_policy)
    return DenseInput(image, placement.boxes_to_canvas(boxes) / clip.patch, cells, labels)


def _token_input(clip: Clip, picture: PIL.Image.Image, masks: Masks, labels: Labels) -> TokenInput:
    image, placement = clip.preprocess(picture, policy="squash")
    return TokenInput(image, masks_to_cells(masks, placement, clip.patch, policy="any") > 0, labels)


def _boxes(record: Record, is_thing: Bool[Tensor, " count"]) -> Boxes:
    """Return the annotated boxes of things and the tight boxes of the masks of stuff; or what there is."""
    if record.masks is None:
        return torch.zeros(0, 4) if record.boxes is None else record.boxes
    tight = masks_to_boxes(record.masks)
    return tight if record.boxes is None else torch.where(is_thing[:, None], record.boxes.to(tight), tight)


def _crops(
    clip: Clip,
    picture: PIL.Image.Image,
    boxes: Boxes,
    is_thing: Bool[Tensor, " count"],
    plan: Plan,
) -> dict[str, Crops]:
    found: dict[str, Crops] = {}
    if "crop" in plan.how:
        factors = torch.where(is_thing, plan.protocol.crop_things, plan.protocol.crop_stuff)
        cuts = [
            crop_regions(picture, box[None], policy=CropPolicy(enlarge=factor))[0]
            for box, factor in zip(boxes, factors.tolist(), strict=True)
        ]
        found["crop"] = torch.stack([clip.preprocess(cut, policy=CROP_POLICIES["pad"])[0] for cut in cuts])
    return found
