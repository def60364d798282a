"""F-ViT: a detector of any words on a frozen CLIP ViT.

    levels = pyramid(maps of four blocks)                 the last one as the dense map is made from
    boxes  = proposals of the levels, class-agnostic, learned on base classes
    p      = softmax(scale * cos(head(region of the levels), words))      the head, trained on base classes
    q      = softmax(75 * cos(mean of the dense map in the region, words))    CLIP, frozen
    score  = p^(1-a) q^a,  a = alpha for base words and the background, beta for novel ones

The last word is "background". Novel words do not exist in training: their logits are minus infinity.

Source: Wu et al., CLIPSelf, ICLR 2024 (arXiv 2310.01403); ``wusize/CLIPSelf`` ``F-ViT/models``. Proposals, anchors and
region pooling are torchvision's (regions of levels half a cell away from mmdet's, box loss of proposals smooth).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, clip_boxes_to_image
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from closeup._types import DenseMap, Embeddings, Images, Labels
from closeup.errors import ModelError
from closeup.heads.box_head import BoxHead
from closeup.heads.fvit_config import FVitConfig
from closeup.heads.losses import box_loss, class_weighted_cross_entropy
from closeup.heads.proposals import proposal_network
from closeup.heads.pyramid import VitPyramid
from closeup.match import cosine, fuse, probabilities, reduce_synonyms, word_weights
from closeup.match.detections import Detections, Suppression, select
from closeup.models.clip import Clip
from closeup.models.token_tower import TokenTower
from closeup.regions import pool_boxes

Sizes = Int[Tensor, "batch 2"]
"""Height and width in pixels of the part of each canvas that shows its picture, from the top left corner."""

Levels = OrderedDict[str, Tensor]


class FVit(nn.Module):
    """F-ViT on a CLIP, whose image tower is no part of the module: it stays as it is.

    ``words`` are the embeddings of the classes that are learned, the background last, and ``novel`` tells which of the
    others are not learned.

    Raises:
        ModelError: the tower is no ViT.
    """

    words: Embeddings
    weights: Float[Tensor, " words"]

    def __init__(self, clip: Clip, words: Embeddings, novel: Sequence[bool], config: FVitConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FVitConfig()
        self.clip = clip
        if not isinstance(clip.tower, TokenTower):
            raise ModelError(f"{clip.name!r} is a {clip.tower.family}: F-ViT makes its pyramid from blocks of a ViT.")
        self.blocks = config.blocks or tapped(clip.blocks)
        width, names = self._width(), ("0", "1", "2", "3")
        self.pyramid = VitPyramid(width)
        self.neck = FeaturePyramidNetwork(
            [width] * 4, config.channels, extra_blocks=LastLevelMaxPool(), norm_layer=nn.BatchNorm2d
        )
        finest = clip.patch / 4
        self.proposals = proposal_network(
            config.channels,
            [finest * 2**level for level in range(5)],
            proposals=config.proposals,
            candidates=config.candidates,
        )
        self.pooling = MultiScaleRoIAlign(list(names), config.bins, sampling_ratio=0)
        self.head = BoxHead(
            config.channels, dim=clip.dim, bins=config.bins, hidden=config.hidden, convolutions=config.convolutions
        )
        self.sampler = RoIHeads(None, None, None, 0.5, 0.5, config.regions, 0.25, None, 0.0, 0.0, 0)
        weights = [0.0 if mark else 1.0 for mark in novel] + [config.background_weight]
        self.register_buffer("words", words, persistent=False)
        self.register_buffer("weights", torch.tensor(weights), persistent=False)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss of a batch and its parts.

        The batch has ``images`` (canvases), ``sizes``, and flat ``boxes`` (xyxy in pixels of the canvas) with
        ``labels`` and ``owners``, the number of each one's picture. No label may be of a novel word: it has no loss.
        """
        images, sizes = batch["images"], batch["sizes"]
        levels, _ = self._levels(images)
        counts = torch.bincount(batch["owners"], minlength=len(images)).tolist()
        boxes, labels = (torch.split(batch[name], counts) for name in ("boxes", "labels"))
        # torchvision counts classes from 1, and the background is 0.
        targets = [{"boxes": box, "labels": label + 1} for box, label in zip(boxes, labels, strict=True)]
        proposed, given = self.proposals(_listed(images, sizes), levels, targets)
        proposed, _, found, deltas = self.sampler.select_training_samples(proposed, targets)
        classes = torch.cat(found)
        objects = (classes > 0).nonzero()[:, 0]
        classes = torch.where(classes > 0, classes - 1, len(self.words) - 1)
        embeddings, moved = self._read(levels, proposed, sizes)
        logits = self.head.logits(embeddings, self.words)
        losses = {
            "objectness": given["loss_objectness"],
            "proposal_boxes": given["loss_rpn_box_reg"],
            "classes": class_weighted_cross_entropy(logits, classes, self.weights),
            "boxes": box_loss(moved, torch.cat(deltas), objects),
        }
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    @torch.no_grad()
    def detect(
        self,
        images: Images,
        sizes: Sizes,
        words: Embeddings,
        novel: Sequence[bool],
        *,
        owner: Labels | None = None,
        threshold: float = 0.01,
        limit: int = 100,
        suppression: Suppression | None = None,
    ) -> list[Detections]:
        """Return what is found in each picture among any words, boxes in pixels of the canvas.

        ``words`` has the background last, ``novel`` a mark for each of the others. With an ``owner`` rows are synonyms,
        and a word's logit is that of its best. Call in eval mode.
        """
        count = len(novel) + 1
        owner = torch.arange(count, device=words.device) if owner is None else owner
        levels, maps = self._levels(images)
        proposed, _ = self.proposals(_listed(images, sizes), levels)
        embeddings, deltas = self._read(levels, proposed, sizes)
        head = reduce_synonyms(self.head.logits(embeddings, words), owner, count).softmax(dim=1)
        regions = torch.cat(pool_boxes(maps, [boxes / self.clip.patch for boxes in proposed]))
        seen = probabilities(reduce_synonyms(cosine(regions, words), owner, count), self.config.clip_scale)
        shares = word_weights([*novel, False], base_weight=self.config.alpha, novel_weight=self.config.beta)
        scores = fuse(head, seen, shares.to(head))[:, :-1]
        moved = self.sampler.box_coder.decode(deltas, list(proposed))[:, 0]
        found = []
        counts = [len(boxes) for boxes in proposed]
        for box, score, size in zip(moved.split(counts), scores.split(counts), sizes.tolist(), strict=True):
            box = clip_boxes_to_image(box, size)
            kept = select(
                box, score, threshold=threshold, limit=limit, suppression=suppression or Suppression(overlap=0.4)
            )
            found.append(Detections(box[kept.rows], kept.labels, kept.scores))
        return found

    def _levels(self, images: Images) -> tuple[Levels, DenseMap]:
        with torch.no_grad():
            maps, dense = self.clip.features_and_dense(images, self.blocks, route=self.config.route)
        levels = self.neck(OrderedDict(zip("0123", self.pyramid(maps), strict=True)))
        return OrderedDict((name, level.float()) for name, level in levels.items()), dense

    def _read(
        self, levels: Levels, boxes: Sequence[Tensor], sizes: Sizes
    ) -> tuple[Float[Tensor, "regions dim"], Float[Tensor, "regions 4"]]:
        regions = self.pooling(levels, list(boxes), [tuple(size) for size in sizes.tolist()])
        embeddings, deltas = self.head(regions)
        return embeddings.float(), deltas.float()

    def _width(self) -> int:
        patch = torch.zeros(1, 3, *self.clip.image_size, device=self.clip.device)
        with torch.no_grad():
            return self.clip.features(patch, [0])[0].shape[1]


def tapped(depth: int) -> tuple[int, int, int, int]:
    """Return four blocks: 3, 5, 7, 11 of 12 and 6, 10, 14, 23 of 24, as the official ones."""
    if depth < 4:
        raise ModelError(f"The tower has {depth} blocks, and a pyramid is made from four of them.")
    first, second, third = (int(depth / 4 + step * depth / 6) for step in range(3))
    return first, second, third, depth - 1


def _listed(images: Images, sizes: Sizes) -> ImageList:
    return ImageList(images, [(int(height), int(width)) for height, width in sizes.tolist()])
