"""F-ViT's head of one region: an embedding to compare with words, and how its box is moved."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead

START = 50.0
"""What the learned factor on cosines starts from."""


class BoxHead(nn.Module):
    """Convolutions and two layers for class and box together, then one layer each.

    The class embedding keeps the last ReLU before the cosine, as the official code does. Boxes are moved alike for
    every class.

    Source: ``wusize/CLIPSelf`` ``F-ViT/models/fvit_head.py`` (FViTBBoxHead).
    """

    def __init__(
        self, channels: int, *, dim: int, bins: int = 7, hidden: int | None = None, convolutions: int = 4
    ) -> None:
        super().__init__()
        inner = [hidden or channels] * convolutions
        self.shared = FastRCNNConvFCHead((channels, bins, bins), inner, [dim, dim], norm_layer=nn.BatchNorm2d)
        self.named = nn.Sequential(nn.Linear(dim, dim), nn.ReLU())
        self.moved = nn.Sequential(nn.Linear(dim, dim), nn.ReLU())
        self.deltas = nn.Linear(dim, 4)
        nn.init.normal_(self.deltas.weight, std=0.001)
        nn.init.zeros_(self.deltas.bias)
        self.scale = nn.Parameter(torch.tensor(START))

    def forward(
        self, regions: Float[Tensor, "regions channels bins bins"]
    ) -> tuple[Float[Tensor, "regions dim"], Float[Tensor, "regions 4"]]:
        """Return each region's embedding, and the changes of its box in the code of Faster R-CNN."""
        shared = self.shared(regions)
        return self.named(shared), self.deltas(self.moved(shared))

    def logits(
        self, embeddings: Float[Tensor, "regions dim"], words: Float[Tensor, "words dim"]
    ) -> Float[Tensor, "regions words"]:
        """Return the cosines of regions and words times the learned factor."""
        return self.scale * normalize(embeddings, dim=1) @ normalize(words, dim=1).T
