"""Half precision where the machine is faster at it, and only if the model bears it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F

from closeup.errors import InputError, suggest
from closeup.models.routes import get_route
from closeup.models.tower import ImageTower

Precision: TypeAlias = Literal["auto", "fp32", "bf16"]
"""``auto`` is bf16 autocast on machines that are faster at it, if the model passes ``parity``."""

PARITY = 0.999
"""The least cosine between a bf16 and an fp32 embedding that ``auto`` accepts."""


def check_precision(precision: str) -> None:
    """Raise InputError unless ``precision`` is one of the three names."""
    if precision not in get_args(Precision):
        raise InputError(f"Unknown precision {precision!r}. {suggest(precision, get_args(Precision))}")


def bf16_is_fast(device: torch.device) -> bool:
    """Tell whether the device multiplies bf16 matrices in hardware: AMX or AVX512-BF16 on CPUs, Ampere or newer."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        return any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return False


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return a context without autocast; on the meta device, where shapes are all there is, one that does nothing."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


@torch.no_grad()
def parity(tower: ImageTower, device: torch.device) -> float:
    """Return the lowest cosine between bf16 and fp32 embeddings, pooled and per patch, of a small random batch."""
    noise = torch.rand(2, 3, *tower.image_size, generator=torch.Generator().manual_seed(0))
    # Smooth noise on top of fine noise: pictures have both.
    images = (F.avg_pool2d(noise, 15, stride=1, padding=7) * 4 + noise - 2.5).to(device)
    route = get_route("value" if "value" in tower.routes else tower.routes[0])
    exact = tower.pooled_and_dense(images, route)
    with torch.autocast(device.type, torch.bfloat16):
        rounded = tower.pooled_and_dense(images, route)
    return min(
        float(F.cosine_similarity(a.float(), b.float(), dim=1).min()) for a, b in zip(exact, rounded, strict=True)
    )
