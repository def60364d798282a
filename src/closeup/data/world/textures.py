"""Seamless textures of the grounds and materials, made once from fixed seeds and then only cut out and scaled."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import MappingProxyType

import numpy as np
import PIL.Image
from jaxtyping import Float

TILE = 512
"""Side of every texture tile, in units of a scene."""

Field = Float[np.ndarray, "rows cols"]
Colours = Float[np.ndarray, "rows cols 3"]


def _noise(seed: int, cell: float, octaves: int = 1) -> Field:
    """Return smooth periodic noise of zero mean and unit deviation, by a Gaussian filter in frequency space."""
    rng = np.random.default_rng(seed)
    frequency = np.fft.fftfreq(TILE)
    radius = frequency[:, None] ** 2 + frequency[None, : TILE // 2 + 1] ** 2
    total = np.zeros((TILE, TILE))
    for octave in range(octaves):
        spectrum = np.fft.rfft2(rng.standard_normal((TILE, TILE)))
        smooth = np.fft.irfft2(spectrum * np.exp(-2 * (np.pi * cell / 2**octave) ** 2 * radius), s=(TILE, TILE))
        total += smooth / smooth.std() / 1.6**octave
    result: Field = total / total.std()
    return result


def _grid() -> tuple[Field, Field]:
    y, x = np.mgrid[0:TILE, 0:TILE].astype(np.float64)
    return x, y


def _tint(rgb: tuple[int, int, int], field: Field) -> Colours:
    result: Colours = np.array(rgb, dtype=np.float64) * (1 + field[..., None])
    return result


def _grass() -> Colours:
    blades = _noise(1, 0.8)
    blades = (blades + np.roll(blades, 1, 0) + np.roll(blades, 2, 0) + np.roll(blades, 3, 0)) / 2
    return _tint((86, 138, 54), 0.16 * blades + 0.08 * _noise(2, 12))


def _sand() -> Colours:
    _, y = _grid()
    ripples = np.sin(2 * np.pi * (y + 5 * _noise(3, 30)) / 32)
    return _tint((216, 190, 140), 0.05 * ripples + 0.05 * _noise(4, 0.6))


def _water() -> Colours:
    _, y = _grid()
    waves = np.sin(2 * np.pi * (y + 6 * _noise(5, 14)) / 16) ** 3
    return _tint((48, 120, 150), 0.2 * waves + 0.08 * _noise(6, 8))


def _sky() -> Colours:
    clouds = np.clip(_noise(7, 30, 3) - 0.4, 0, 1.4)[..., None] / 1.4
    return np.array([128, 182, 232.0]) * (1 - clouds) + np.array([244, 246, 250.0]) * clouds


def _brick() -> Colours:
    x, y = _grid()
    row = np.floor(y / 16)
    shifted = x + 16 * (row % 2)
    mortar = (y % 16 < 2.2) | (shifted % 32 < 2.2)
    shade = np.random.default_rng(8).uniform(-0.14, 0.14, (32, 16))
    tone = shade[row.astype(int) % 32, (shifted // 32).astype(int) % 16]
    face = _tint((158, 82, 62), tone + 0.05 * _noise(9, 0.8))
    return np.where(mortar[..., None], _tint((196, 188, 176), 0.04 * _noise(10, 0.8)), face)


def _snow() -> Colours:
    return _tint((232, 238, 246), 0.025 * _noise(11, 18) + 0.02 * (_noise(12, 0.5) > 1.6))


def _gravel() -> Colours:
    stones = _noise(13, 2.2)
    return _tint((140, 134, 128), 0.2 * np.tanh(2 * stones) + 0.06 * _noise(14, 0.5))


def _planks() -> Colours:
    x, _ = _grid()
    board = np.floor(x / 32).astype(int)
    tone = np.random.default_rng(15).uniform(-0.12, 0.12, 16)[board % 16]
    grain = np.sin(2 * np.pi * (x + 1.4 * _noise(16, 10)) / 6)
    gap = x % 32 < 1.8
    return np.where(gap[..., None], _tint((70, 46, 28), 0 * x), _tint((178, 128, 80), tone + 0.06 * grain))


def _tiles() -> Colours:
    x, y = _grid()
    line = (x % 32 < 1.8) | (y % 32 < 1.8)
    chess = ((x // 32 + y // 32) % 2) * 0.12 - 0.06
    return np.where(
        line[..., None], _tint((120, 124, 128), 0 * x), _tint((206, 214, 216), chess + 0.02 * _noise(17, 6))
    )


def _carpet() -> Colours:
    x, y = _grid()
    medallion = np.cos(2 * np.pi * x / 64) * np.cos(2 * np.pi * y / 64)
    weave = ((x.astype(int) + y.astype(int)) % 2) * 0.1 - 0.05
    face = np.where((np.abs(medallion) > 0.45)[..., None], np.array([176, 142, 92.0]), np.array([112, 40, 64.0]))
    result: Colours = face * (1 + weave[..., None] + 0.05 * _noise(18, 0.6)[..., None])
    return result


_GROUND_MAKERS: MappingProxyType[str, Callable[[], Colours]] = MappingProxyType(
    {
        "grass": _grass,
        "sand": _sand,
        "water": _water,
        "sky": _sky,
        "brick": _brick,
        "snow": _snow,
        "gravel": _gravel,
        "planks": _planks,
        "tiles": _tiles,
        "carpet": _carpet,
    }
)


@cache
def ground_tile(name: str) -> PIL.Image.Image:
    """Return the RGB tile of a ground, doubled on both axes so that any cut of up to one tile lies inside."""
    tile = np.clip(_GROUND_MAKERS[name](), 0, 255).astype(np.uint8)
    return PIL.Image.fromarray(np.tile(tile, (2, 2, 1)))


def _wood_grain() -> Field:
    x, _ = _grid()
    result: Field = 0.22 * np.sin(2 * np.pi * (x + 5 * _noise(21, 24)) / 8) + 0.06 * _noise(22, 1)
    return result


def _weave() -> Field:
    x, y = _grid()
    return 0.2 * np.where((x // 2 + y // 2) % 2 == 0, np.cos(np.pi * x / 2), np.cos(np.pi * y / 2)) - 0.04


_MATERIAL_MAKERS: MappingProxyType[str, Callable[[], Field]] = MappingProxyType(
    {
        "plastic": lambda: 0.0 * _noise(20, 4),
        "metal": lambda: 0.03 * _noise(23, 0.6),
        "wooden": _wood_grain,
        "stone": lambda: 0.2 * np.tanh(1.5 * _noise(24, 1.6, 2)) - 0.05,
        "fabric": _weave,
        "paper": lambda: 0.015 * _noise(25, 0.8),
        "leather": lambda: 0.16 * np.abs(_noise(26, 2.4)) - 0.14,
    }
)


@cache
def material_tile(name: str) -> PIL.Image.Image:
    """Return the brightness change of a material, a float picture around zero, doubled on both axes."""
    return PIL.Image.fromarray(np.tile(_MATERIAL_MAKERS[name]().astype(np.float32), (2, 2)))
