"""F-ViT: a detector of any words on a frozen CLIP.

    levels = pyramid(maps of four blocks)                 the last one as the dense map is made from
    boxes  = proposals of the levels, class-agnostic, learned on base classes
    p      = softmax(scale * cos(head(region of the levels), words))      the head, trained on base classes
    q      = softmax(75 * cos(mean of the dense map in the region, words))    CLIP, frozen
    score  = p^(1-a) q^a,  a = alpha for base words and the background, beta for novel ones

The last word is "background". Novel words do not exist in training: their logits are minus infinity.

Source: Wu et al., CLIPSelf, ICLR 2024 (arXiv 2310.01403); ``wusize/CLIPSelf`` ``F-ViT/models``. The proposal network is
torchvision's, so the box loss of proposals is smooth where mmdet's is L1. On a tower of stages it is F-VLM (Kuo et al.,
ICLR 2023, arXiv 2209.15639), from which F-ViT came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from closeup._types import Embeddings, Images, Labels
from closeup.heads.backbone import ClipPyramid, Levels
from closeup.heads.box_head import BoxHead
from closeup.heads.fvit_config import FVitConfig
from closeup.heads.losses import box_loss, class_weighted_cross_entropy
from closeup.heads.mask_head import BINS, MaskHead, mask_loss
from closeup.heads.proposals import listed, proposal_network
from closeup.heads.region_pooling import PyramidPooling
from closeup.heads.regions import Drawn, Sizes, as_targets, draw, objects_of, picked, region_sampler
from closeup.match import cosine, fuse, probabilities, reduce_synonyms, word_weights
from closeup.match.detections import Detections, Suppression
from closeup.models.clip import Clip
from closeup.regions import pool_boxes


class FVit(nn.Module):
    """F-ViT on a CLIP, whose image tower is no part of the module: it stays as it is.

    ``words`` are the embeddings of the classes that are learned, the background last, and ``novel`` tells which of the
    others are not learned.

    Raises:
        ModelError: the tower has fewer than four blocks.
    """

    kind: ClassVar[str] = "fvit"
    background: ClassVar[str] = "background"
    """The word for whatever is no object; it comes after all others."""
    proposer: ClassVar[None] = None
    words: Embeddings
    weights: Float[Tensor, " words"]

    def __init__(self, clip: Clip, words: Embeddings, novel: Sequence[bool], config: FVitConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FVitConfig()
        self.clip = clip
        self.pyramid = ClipPyramid(clip, config.channels, blocks=config.blocks, route=config.route)
        self.proposals = proposal_network(
            config.channels, self.pyramid.strides, proposals=config.proposals, candidates=config.candidates
        )
        self.pooling = PyramidPooling(self.pyramid.strides[:4], config.bins)
        self.head = BoxHead(
            config.channels, dim=clip.dim, bins=config.bins, hidden=config.hidden, convolutions=config.convolutions
        )
        self.sampler = region_sampler(config.regions)
        if config.masks:
            self.mask_pooling = PyramidPooling(self.pyramid.strides[:4], BINS)
            self.mask_head = MaskHead(config.channels, hidden=config.hidden)
        weights = [0.0 if mark else 1.0 for mark in novel] + [config.background_weight]
        self.register_buffer("words", words, persistent=False)
        self.register_buffer("weights", torch.tensor(weights), persistent=False)

    @property
    def outlines(self) -> bool:
        """Whether it outlines things, and learns from masks."""
        return self.config.masks

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss of a batch and its parts.

        The batch has ``images`` (canvases), ``sizes``, and flat ``boxes`` (xyxy in pixels of the canvas) with
        ``labels`` and ``owners``, the number of each one's picture; a head of masks wants ``masks`` on the canvas too.
        No label may be of a novel word: it has no loss.
        """
        images, sizes = batch["images"], batch["sizes"]
        levels, _ = self.pyramid(images)
        targets = as_targets(batch)
        proposed, given = self.proposals(listed(images, sizes), levels, targets)
        drawn = draw(self.sampler, proposed, targets, background=len(self.words) - 1)
        embeddings, moved = self._read(levels, drawn.boxes)
        with torch.autocast(images.device.type, enabled=False):  # cosines times 50 have no room in half precision
            losses = {
                "objectness": given["loss_objectness"],
                "proposal_boxes": given["loss_rpn_box_reg"],
                "classes": class_weighted_cross_entropy(
                    self.head.logits(embeddings, self.words), drawn.classes, self.weights
                ),
                "boxes": box_loss(moved, drawn.deltas, drawn.objects),
            }
        if self.config.masks:
            losses["masks"] = self._mask_loss(levels, drawn, batch)
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
        found = self.look(images, sizes)
        kept = picked(
            found.boxes,
            found.scores(words, novel, owner),
            sizes,
            threshold=threshold,
            limit=limit,
            suppression=suppression or Suppression(overlap=self.config.overlap),
        )
        return self._outlined(found.levels, kept) if self.config.masks else kept

    @torch.no_grad()
    def look(self, images: Images, sizes: Sizes) -> FVitCandidates:
        """Return what may be an object in each picture, whatever the words; call in eval mode."""
        levels, maps = self.pyramid(images)
        proposed, _ = self.proposals(listed(images, sizes), levels)
        embeddings, deltas = self._read(levels, proposed)
        seen = torch.cat(pool_boxes(maps, [boxes / self.clip.patch for boxes in proposed]))
        moved = self.sampler.box_coder.decode_single(deltas, torch.cat(proposed))
        return FVitCandidates(self, moved.split([len(boxes) for boxes in proposed]), embeddings, seen, levels)

    @property
    def route(self) -> str:
        """How the last block is replaced in the dense map."""
        return self.config.route

    def _mask_loss(self, levels: Levels, drawn: Drawn, batch: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Return the loss of the outlines of regions that are objects."""
        boxes, masks, matched = objects_of(drawn, batch)
        return mask_loss(self.mask_head(self.mask_pooling(levels, boxes)), boxes, masks, matched)

    def _outlined(self, levels: Levels, found: Sequence[Detections]) -> list[Detections]:
        logits = self.mask_head(self.mask_pooling(levels, [each.boxes for each in found]))
        outlines = logits.sigmoid().split([len(each) for each in found])
        return [replace(each, outlines=outline) for each, outline in zip(found, outlines, strict=True)]

    def _read(
        self, levels: Levels, boxes: Sequence[Tensor]
    ) -> tuple[Float[Tensor, "regions dim"], Float[Tensor, "regions 4"]]:
        embeddings, deltas = self.head(self.pooling(levels, list(boxes)))
        return embeddings.float(), deltas.float()


@dataclass(frozen=True, slots=True, eq=False)
class FVitCandidates:
    """Proposals of pictures, moved, and of all together what the head and the frozen CLIP read there."""

    head: FVit
    boxes: Sequence[Float[Tensor, "_ 4"]]
    embeddings: Float[Tensor, "regions dim"]
    seen: Float[Tensor, "regions dim"]
    levels: Levels

    @torch.no_grad()
    def scores(
        self, words: Embeddings, novel: Sequence[bool], owner: Labels | None = None
    ) -> list[Float[Tensor, "_ words"]]:
        """Return the score of every word for every box; see ``Candidates``."""
        config, count = self.head.config, len(novel) + 1
        owner = torch.arange(count, device=words.device) if owner is None else owner
        learned = reduce_synonyms(self.head.head.logits(self.embeddings, words), owner, count).softmax(dim=1)
        frozen = probabilities(reduce_synonyms(cosine(self.seen, words), owner, count), config.clip_scale)
        shares = word_weights([*novel, False], base_weight=config.alpha, novel_weight=config.beta)
        scores = fuse(learned, frozen, shares.to(learned))[:, :-1]
        return list(scores.split([len(boxes) for boxes in self.boxes]))
