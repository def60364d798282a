"""Semantic FPN: a feature pyramid whose levels are brought to the finest one, summed, and read pixel by pixel.

Source: Kirillov et al., Panoptic Feature Pyramid Networks (arXiv 1901.02446), Section 3.2; the form that DenseCLIP
(arXiv 2112.01518) has of it: one 3 x 3 convolution for each halving of size, one for the finest level, batch norms.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork


class SemanticFpn(nn.Module):
    """From maps of ``widths`` channels, finest first and each half as large, to logits of words at the finest size.

    Norms are over the batch; the official ones are over all devices.
    """

    def __init__(
        self, widths: Sequence[int], words: int, *, channels: int = 256, hidden: int = 256, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.neck = FeaturePyramidNetwork(list(widths), channels)
        self.scales = nn.ModuleList(_scale(channels, hidden, level) for level in range(len(widths)))
        self.dropout = nn.Dropout2d(dropout)
        self.words = nn.Conv2d(hidden, words, 1)

    def forward(self, maps: Sequence[Float[Tensor, "batch _ _ _"]]) -> Float[Tensor, "batch words rows cols"]:
        """Return the logits."""
        levels = self.neck(OrderedDict((str(index), level) for index, level in enumerate(maps))).values()
        size = maps[0].shape[2:]
        total = torch.zeros((), device=maps[0].device)
        for scale, level in zip(self.scales, levels, strict=True):
            grown = scale(level)
            if grown.shape[2:] != size:  # sides that do not halve evenly
                grown = F.interpolate(grown, size, mode="bilinear", align_corners=False)
            total = total + grown
        logits: Tensor = self.words(self.dropout(total))
        return logits


def _scale(channels: int, hidden: int, level: int) -> nn.Sequential:
    """Return what brings a level to the size of the finest."""
    steps: list[nn.Module] = []
    for step in range(max(1, level)):
        steps += [
            nn.Conv2d(channels if step == 0 else hidden, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
        ]
        if level > 0:
            steps.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
    return nn.Sequential(*steps)
