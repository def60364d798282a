"""Masked crops as tensors, each with the mask that it shows: what a CLIP with mask prompts sees."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate

from closeup._types import Boxes
from closeup.errors import InputError
from closeup.geometry import masks_to_boxes
from closeup.regions.crops import CropPolicy, crop_corners

OVSEG = CropPolicy(shape="squash", masked=True, corners="truncate", resize="plain")
"""How OVSeg cuts at inference: the mask's tight box, mean colour around the mask, stretched to the input's shape."""


def masked_crops(
    image: Float[Tensor, "3 height width"],
    masks: Bool[Tensor, "regions lines columns"],
    size: tuple[int, int],
    policy: CropPolicy = OVSEG,
    *,
    boxes: Boxes | None = None,
    black: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> tuple[Float[Tensor, "regions 3 rows cols"], Bool[Tensor, "regions rows cols"]]:
    """Return every mask's cut-out of a normalised image at a size, and the mask on it.

    ``boxes`` are cut, the masks' own where there are none. What lies outside of the mask is 0, which is the mean
    colour, or ``black`` (what black is normalised to) where the policy fills with zeros. Values may overshoot by the
    bicubic filter; nothing is rounded. Masks are scaled to the nearest pixel.

    Raises:
        InputError: a policy that pads, masks of another size than the image, or a mask without a pixel.

    Source: ``facebookresearch/ov-seg`` ``open_vocab_seg/modeling/clip_adapter/adapter.py``. There the crops for
    training are of another shape and their masks are read off the fill colour; here they are these very ones.
    """
    if policy.shape != "squash":
        raise InputError("Masked crops as tensors are squashed: the mask must fit its crop. Set the shape to 'squash'.")
    if tuple(masks.shape[1:]) != tuple(image.shape[1:]):
        raise InputError(
            f"Masks of {tuple(masks.shape[1:])} on an image of {tuple(image.shape[1:])} (height, width): give masks of "
            "the size of the image."
        )
    empty = (~masks.flatten(1).any(dim=1)).nonzero().flatten().tolist()
    if empty:
        raise InputError(f"Mask {empty[0]} is empty: leave out regions without a pixel.")
    masks = masks.to(image.device)
    crops, shown = image.new_empty(len(masks), 3, *size), masks.new_empty(len(masks), *size)
    fill = image.new_tensor(black if policy.fill == "zero" else (0.0, 0.0, 0.0))[:, None, None]
    frames = masks_to_boxes(masks) if boxes is None else boxes
    height, width = image.shape[1:]
    corners = crop_corners(frames, height, width, policy.enlarge, policy.corners)
    for index, (x0, y0, x1, y1) in enumerate(corners):
        plane, pixels = masks[index, y0:y1, x0:x1], image[:, y0:y1, x0:x1]
        cut = torch.where(plane, pixels, fill) if policy.masked else pixels
        smooth = policy.resize == "antialias"
        crops[index] = interpolate(cut[None], size, mode="bicubic", align_corners=False, antialias=smooth)[0]
        shown[index] = interpolate(plane[None, None].to(image), size, mode="nearest")[0, 0] > 0
    return crops, shown
