"""A map of numbers over its photograph, with the scale beside it."""

from __future__ import annotations

import numpy as np
import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from closeup._types import ImageLike
from closeup.errors import InputError
from closeup.viz.canvas import enlarged
from closeup.viz.legend import INK, PAPER
from closeup.viz.overlay import MIN_SIDE
from closeup.viz.text import font_size, line, rounded

# Every sixteenth entry of matplotlib's "inferno" (CC0): lightness grows evenly, so it reads in grey and colour-blind.
_INFERNO = (
    *("000004", "0b0724", "210c4a", "3d0965", "57106e", "71196e", "8a226a", "a32c61", "bc3754"),
    *("d24644", "e45a31", "f1731d", "f98e09", "fcac11", "f9cb35", "f2ea69", "fcffa4"),
)


def heat_colours(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape 3"]:
    """Return the colour, from 0 to 1, of each value from 0 (black violet) to 1 (pale yellow); others are clipped."""
    table = torch.tensor([list(bytes.fromhex(entry)) for entry in _INFERNO], dtype=torch.float32) / 255
    place = values.float().clamp(0, 1) * (len(table) - 1)
    below = place.floor().long().clamp(max=len(table) - 2)
    share = (place - below)[..., None]
    return table[below] * (1 - share) + table[below + 1] * share


def draw_heatmap(
    image: ImageLike,
    heat: Float[Tensor, "rows cols"],
    *,
    low: float | None = None,
    high: float | None = None,
    alpha: float = 0.6,
    bar: bool = True,
    min_side: int = MIN_SIDE,
) -> PIL.Image.Image:
    """Return a grey copy of the image coloured by a map of any resolution, with a bar that gives the scale.

    ``heat`` covers the whole image: cut the pad of a dense map off first. ``low`` and ``high`` are the
    ends of the scale, by default the least and the greatest finite value; give both to compare pictures.
    Cells that are not finite stay grey. The photograph has the image's size times the whole factor that
    ``min_side`` asks for (0: none); the bar widens the picture.

    Raises:
        InputError: where ``heat`` is empty or ``low`` lies above ``high``.
    """
    if not heat.numel():
        raise InputError(f"the map is empty, its shape is {tuple(heat.shape)}; give at least one cell.")
    picture, _ = enlarged(image, min_side)
    finite = heat[heat.isfinite()]
    low = low if low is not None else float(finite.min()) if len(finite) else 0.0
    high = high if high is not None else float(finite.max()) if len(finite) else 0.0
    if low > high:
        raise InputError(f"the scale must rise, but low={low} lies above high={high}.")
    painted = _paint(picture, heat.detach().float().cpu(), low, high, alpha)
    return _with_bar(painted, low, high) if bar else painted


def _paint(picture: PIL.Image.Image, heat: Tensor, low: float, high: float, alpha: float) -> PIL.Image.Image:
    size = (picture.height, picture.width)
    known = heat.isfinite()
    scaled = torch.where(known, (heat - low) / max(high - low, 1e-12), 0.0)
    # Weighted, so that cells that are not finite do not darken their neighbours.
    shares = _resized(known.float(), size)
    values = _resized(scaled, size) / shares.clamp(min=1e-6)
    grey = torch.from_numpy(np.array(picture.convert("L"))).float()[..., None] / 255
    mixed = heat_colours(values) * alpha + grey * (1 - alpha)
    mixed = torch.where(shares[..., None] >= 0.5, mixed, grey)
    return PIL.Image.fromarray((mixed * 255).round().byte().numpy())


def _resized(plane: Tensor, size: tuple[int, int]) -> Tensor:
    return interpolate(plane[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]


def _with_bar(picture: PIL.Image.Image, low: float, high: float) -> PIL.Image.Image:
    size = font_size(*picture.size)
    digits = _digits(low, high)
    ticks = [high, (low + high) / 2, low] if high > low else [high]
    lines = [line(f"{tick:.{digits}f}", size) for tick in ticks]
    gap, wide = round(size * 0.7), round(size * 1.1)
    text_left = picture.width + gap + wide + gap
    whole = PIL.Image.new("RGB", (text_left + max(text.width for text in lines) + gap, picture.height), PAPER)
    whole.paste(picture, (0, 0))
    top, bottom = gap, max(picture.height - gap, gap + 1)
    whole.paste(_gradient(wide, bottom - top), (picture.width + gap, top), rounded(wide, bottom - top, wide * 0.25))
    for index, text in enumerate(lines):
        y = top + (bottom - 1 - top) * index / max(len(lines) - 1, 1)
        text.draw(whole, text_left, min(max(y - text.height / 2, 0), picture.height - text.height), INK)
    return whole


def _gradient(width: int, height: int) -> PIL.Image.Image:
    column = heat_colours(torch.linspace(1, 0, height))[:, None].expand(height, width, 3)
    return PIL.Image.fromarray((column * 255).round().byte().numpy())


def _digits(low: float, high: float) -> int:
    """Return the decimals that tell the ends of a scale apart."""
    span = high - low or abs(high) or 1.0
    return next((digits for digits in range(6) if span * 10**digits >= 20), 6)
