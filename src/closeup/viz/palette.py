"""Colours that stay with a name and stay apart for readers with and without colour-blindness."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import cache
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

Colour: TypeAlias = tuple[int, int, int]
"""Red, green and blue from 0 to 255 (sRGB)."""

SIZE = 256
"""Colours in the table; a longer vocabulary starts again from the first."""

PREFERRED = 24
"""A name asks for one of the first, most distinct colours; the others serve names whose wish is taken."""

# Okabe and Ito 2008, "Color Universal Design", without black.
_OKABE_ITO = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
# Protanopia and deuteranopia in linear RGB: Machado, Oliveira and Fernandes 2009, severity 1.0.
_DICHROMATS = (
    ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
)
# Oklab: Ottosson 2020, "A perceptual color space for image processing".
_RGB_TO_LMS = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_LMS_TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def name_colours(names: Sequence[str]) -> list[Colour]:
    """Return one colour for each name; equal names share one, different names do not (up to ``SIZE``).

    A name has the same colour in every vocabulary unless another name before it holds that colour.
    """
    given: dict[str, int] = {}
    free = dict.fromkeys(range(SIZE))
    for name in names:
        if name in given:
            continue
        if not free:
            free = dict.fromkeys(range(SIZE))
        wish = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % PREFERRED
        given[name] = wish if wish in free else next(iter(free))
        del free[given[name]]
    return [colours()[given[name]] for name in names]


@cache
def colours() -> tuple[Colour, ...]:
    """Return the table: Okabe and Ito's seven, then always the colour farthest from all before it.

    Distance is Oklab's, the mean of normal sight and of the worse of protanope and deuteranope sight,
    so that lightness helps where hue cannot. Greys, near-black, near-white and the most glaring colours
    are left out: photographs and text need them, or no one does.
    """
    candidates = _candidates()
    normal = _to_oklab(candidates)
    dichromats = torch.stack([_to_oklab(_simulate(candidates, matrix)) for matrix in _DICHROMATS])
    nearest = torch.full((len(candidates),), math.inf)
    chosen = list(range(len(_OKABE_ITO)))
    for step in range(SIZE):
        if step == len(chosen):
            chosen.append(int(nearest.argmax()))
        last = chosen[step]
        worst = (dichromats - dichromats[:, last : last + 1]).norm(dim=2).amin(dim=0)
        nearest = torch.minimum(nearest, (normal - normal[last]).norm(dim=1) / 2 + worst / 2)
    table = (candidates[chosen] * 255).round().int().tolist()
    return tuple((red, green, blue) for red, green, blue in table)


def ink(colour: Colour) -> Colour:
    """Return black or white, whichever reads better on a colour (WCAG 2 relative luminance)."""
    linear = _to_linear(torch.tensor(colour) / 255)
    luminance = float(linear @ torch.tensor([0.2126, 0.7152, 0.0722]))
    return (255, 255, 255) if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else (0, 0, 0)


def _candidates() -> Float[Tensor, "candidates 3"]:
    steps = torch.linspace(0, 1, 18)
    grid = torch.cartesian_prod(steps, steps, steps)
    lab = _to_oklab(grid)
    chroma = lab[:, 1:].norm(dim=1)
    fit = (lab[:, 0] > 0.45) & (lab[:, 0] < 0.9) & (chroma > 0.09) & (chroma < 0.2)
    return torch.cat([torch.tensor(_OKABE_ITO) / 255, grid[fit]])


def _to_linear(rgb: Tensor) -> Tensor:
    return torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def _to_srgb(linear: Tensor) -> Tensor:
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def _simulate(rgb: Tensor, matrix: Sequence[Sequence[float]]) -> Tensor:
    return _to_srgb((_to_linear(rgb) @ torch.tensor(matrix).T).clamp(0, 1))


def _to_oklab(rgb: Tensor) -> Tensor:
    lms = (_to_linear(rgb) @ torch.tensor(_RGB_TO_LMS).T).clamp(min=0) ** (1 / 3)
    return lms @ torch.tensor(_LMS_TO_LAB).T
