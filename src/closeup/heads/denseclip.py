"""DenseCLIP: scores of words at every place of a picture guide a segmenter that learns with its backbone.

    levels, z, Z = tower(picture)
    t            = words, as far as they know of the picture             ``prompting``
    score        = cos(Z, t)                                             at each cell of the dense map
    logits       = SemanticFPN(levels, score beside one of them)
    loss         = CE(logits) + 0.4 * CE(score / 0.07)

Source: Rao et al., DenseCLIP, CVPR 2022 (arXiv 2112.01518); ``raoyongming/DenseCLIP``
``segmentation/denseclip/denseclip.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from closeup._types import IGNORE, DenseMap, Images
from closeup.heads.denseclip_config import DenseClipConfig
from closeup.heads.prompting import Prompting
from closeup.heads.semantic_fpn import SemanticFpn
from closeup.heads.tower_backbone import TowerBackbone
from closeup.models.precision import full_precision


class DenseClip(nn.Module):
    """A segmenter of ``words`` words on a backbone; ``prompting`` is None for a plain pyramid without language."""

    kind: ClassVar[str] = "denseclip"

    def __init__(
        self, backbone: TowerBackbone, prompting: Prompting | None, words: int, config: DenseClipConfig | None = None
    ) -> None:
        super().__init__()
        self.config = config = config or DenseClipConfig()
        self.backbone, self.prompting = backbone, prompting
        widths = joined_widths(backbone, 0 if prompting is None else words)
        self.fpn = SemanticFpn(widths, words, channels=config.channels, hidden=config.hidden, dropout=config.dropout)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return ``loss`` and its parts, of ``images`` and their ``labels``, IGNORE where nothing is to be learned."""
        images, patch = batch["images"], self.backbone.clip.patch
        logits, scores = self.read(images)
        # The tower pads to whole patches, and so do the labels, or they would lie elsewhere than the logits.
        labels = F.pad(batch["labels"], (0, -images.shape[3] % patch, 0, -images.shape[2] % patch), value=IGNORE)
        count = _count(batch, self.config.average)
        losses = {"pixels": pixel_loss(logits, labels, count)}
        loss = losses["pixels"]
        if scores is not None and self.config.auxiliary:
            losses["scores"] = pixel_loss(scores / self.config.temperature, labels, count)
            loss = loss + self.config.auxiliary * losses["scores"]
        return {"loss": loss, **losses}

    def read(
        self, images: Images
    ) -> tuple[Float[Tensor, "batch words _rows _cols"], Float[Tensor, "batch words rows cols"] | None]:
        """Return logits of words at the cells of the finest level, and the score map if there is one."""
        levels, scores = read_with_scores(images, self.backbone, self.prompting, self.config)
        logits: Tensor = self.fpn(levels)
        return logits.float(), scores


def joined_widths(backbone: TowerBackbone, words: int) -> list[int]:
    """Return the channels of a backbone's maps after the scores of words joined one of them."""
    joins = backbone.score_level
    return [width + words * (level == joins) for level, width in enumerate(backbone.widths)]


def read_with_scores(
    images: Images, backbone: TowerBackbone, prompting: Prompting | None, config: DenseClipConfig
) -> tuple[list[Float[Tensor, "batch _ _ _"]], Float[Tensor, "batch words rows cols"] | None]:
    """Return a backbone's maps, the scores beside one of them, and the scores as cosines, None without language."""
    levels, pooled, dense = backbone(images)
    if prompting is None or pooled is None or dense is None:
        return levels, None
    scores = score_map(dense, prompting(pooled, dense))
    joined = scores / config.temperature if config.scores == "divided" else scores
    place = backbone.score_level
    levels[place] = torch.cat([levels[place], joined.to(levels[place])], dim=1)
    return levels, scores


def score_map(
    dense: DenseMap, words: Float[Tensor, "one_or_batch words dim"]
) -> Float[Tensor, "batch words rows cols"]:
    """Return the cosine of every word with every cell; one row of words does for all pictures.

    In full precision whatever autocast is on: half precision has 2 to 3 digits.
    """
    with full_precision(dense.device):
        cells, words = F.normalize(dense.float(), dim=1), F.normalize(words.float(), dim=2)
        scores = words.expand(len(dense), -1, -1) @ cells.flatten(2)
    return scores.reshape(len(dense), words.shape[1], *dense.shape[2:])


def pixel_loss(
    logits: Float[Tensor, "batch words _rows _cols"], labels: Int[Tensor, "batch height width"], count: float | Tensor
) -> Float[Tensor, ""]:
    """Return the sum of the cross entropy of logits, brought to the labels' size, over the labelled pixels / ``count``.

    0 where no pixel is labelled.
    """
    grown = F.interpolate(logits.float(), labels.shape[1:], mode="bilinear", align_corners=False)
    return F.cross_entropy(grown, labels, ignore_index=IGNORE, reduction="sum") / count


def _count(batch: Mapping[str, Tensor], average: str) -> float | Tensor:
    """Return what the loss of a batch is divided by.

    The number of labelled pixels, the mean over all processes where the loop tells it (``terms``); or, with "all", of
    all pixels, the ignored ones too, as mmsegmentation 0.19 does below the official code.
    """
    labels = batch["labels"]
    if average == "all":
        return float(labels.numel())
    count = batch["terms"] if "terms" in batch else (labels != IGNORE).sum()
    return count.clamp(min=1)
