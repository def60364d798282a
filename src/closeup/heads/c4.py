"""RegionCLIP's detector: a CLIP whose image tower learns to name the boxes of a proposer that does not.

    boxes  = proposals, class-agnostic, of a frozen proposer
    f      = region of the picture                        the tower, trained on base classes; not normalised
    p      = softmax(cos(f, words) / 0.01)                words and the background, whose embedding is all zeros
    box    = proposal moved by a linear layer of f        alike for every class
    score  = p, or sqrt(p * objectness)

The background's logit is exactly 0. Novel words do not exist in training; when detecting, any words do.

CLIP's ResNets read each box by itself through their last stage and attention pool ("C4"); stem, first stage and norms
stay as they are. Other towers pool their dense map: there f is the mean of normalised cells, which is not normalised
again, and blocks learn.

Source: Zhong et al., RegionCLIP, CVPR 2022 (arXiv 2112.09106); ``microsoft/RegionCLIP``
``modeling/roi_heads/clip_roi_heads.py`` and ``fast_rcnn.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import interpolate

from closeup._types import Embeddings, Images, Labels
from closeup.heads.c4_config import C4Config
from closeup.heads.losses import box_loss, focal_cross_entropy, weighted_cross_entropy
from closeup.heads.regions import Sizes, as_targets, draw, picked, region_sampler
from closeup.heads.rpn import Proposals, Proposer
from closeup.match import cosine, reduce_synonyms
from closeup.match.detections import Detections, Suppression, with_objectness
from closeup.models.blocks import region_blocks
from closeup.models.clip import Clip
from closeup.models.image_copy import image_copy
from closeup.models.preprocess import renormalised
from closeup.models.region_features import StageFeatures, region_features


class C4(nn.Module):
    """RegionCLIP's detector on a copy of a CLIP's image tower; the CLIP and the proposer stay as they are.

    The module holds the box layer and what learns of the tower, and nothing else: all of its parameters learn.
    ``words`` are the embeddings of the classes, the background's zeros last, and ``novel`` tells which of the others do
    not exist in training.

    Raises:
        ConfigError: more blocks than there are.
        InputError: a route that the tower does not know.
    """

    kind: ClassVar[str] = "c4"
    background: ClassVar[None] = None
    """Whatever is no object has no word, but zeros."""
    outlines: ClassVar[bool] = False
    words: Embeddings
    places: Labels

    def __init__(
        self,
        clip: Clip,
        proposer: Proposer,
        words: Embeddings,
        novel: Sequence[bool],
        config: C4Config | None = None,
    ) -> None:
        super().__init__()
        self.config = config = config or C4Config()
        self.clip, self.proposer = image_copy(clip), proposer
        self.reads = region_features(self.clip, route=config.route)
        learned = self.reads.moving(region_blocks(self.clip, config.blocks))
        self.clip.model.requires_grad_(False)
        # The tower is no part of the module, so that what is frozen is neither trained, nor moved, nor saved.
        self.tower = nn.ParameterDict(
            {name.replace(".", "/"): parameter.requires_grad_(True) for name, parameter in learned.items()}
        )
        self.deltas = nn.Linear(clip.dim, 4)
        nn.init.normal_(self.deltas.weight, std=0.001)
        nn.init.zeros_(self.deltas.bias)
        self.sampler = region_sampler(config.regions)
        known = torch.tensor([not mark for mark in novel] + [True], device=words.device)
        self.register_buffer("words", words[known], persistent=False)
        self.register_buffer("places", torch.where(known, known.cumsum(0) - 1, -1)[:-1], persistent=False)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss of a batch as ``FVit.forward`` has it, and its parts; boxes of novel words are left out."""
        images = batch["images"]
        labels = self.places[batch["labels"]]
        known = labels >= 0
        shown = {name: batch[name][known] for name in ("boxes", "owners")}
        targets = as_targets({"images": images, "labels": labels[known], **shown})
        proposed = [each.boxes for each in self.propose(images, batch["sizes"])]
        drawn = draw(self.sampler, proposed, targets, background=len(self.words) - 1)
        regions = self.read(images, drawn.boxes)
        with torch.autocast(images.device.type, enabled=False):  # cosines over 0.01 have no room in half precision
            losses = {
                "classes": self._class_loss(self.logits(regions, self.words), drawn.classes),
                "boxes": box_loss(self.deltas(regions), drawn.deltas, drawn.objects),
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

        As ``FVit.detect``, but the last of ``words`` is all zeros; which of them are novel makes no difference. The
        official evaluation has soft suppression.
        """
        found = self.look(images, sizes)
        return picked(
            found.boxes,
            found.scores(words, novel, owner),
            sizes,
            threshold=threshold,
            limit=limit,
            suppression=suppression or Suppression(),
        )

    @torch.no_grad()
    def look(self, images: Images, sizes: Sizes) -> C4Candidates:
        """Return what may be an object in each picture, whatever the words; call in eval mode."""
        proposed = self.propose(images, sizes)
        return self.moved(proposed, self.read(images, [each.boxes for each in proposed]))

    def moved(self, proposed: Sequence[Proposals], regions: Float[Tensor, "regions dim"]) -> C4Candidates:
        """Return the proposals of pictures, moved by what was read off them."""
        boxes = [each.boxes for each in proposed]
        moved = self.sampler.box_coder.decode_single(self.deltas(regions), torch.cat(boxes))
        logits = torch.cat([each.logits for each in proposed])
        return C4Candidates(self, moved.split([len(each) for each in boxes]), regions, logits)

    def logits(
        self, regions: Float[Tensor, "regions dim"], words: Float[Tensor, "words dim"]
    ) -> Float[Tensor, "regions words"]:
        """Return the cosines of regions and words over the temperature; 0 for a word that is all zeros."""
        return cosine(regions, words) / self.config.temperature

    def propose(self, images: Images, sizes: Sizes) -> list[Proposals]:
        """Return the proposer's boxes, in pixels of the canvas.

        It sees the pictures at the size that it was trained at, and normalised as its CLIP wants them.
        """
        theirs, side = self.proposer.clip.image_preprocess, max(images.shape[2:])
        seen = renormalised(images, self.clip.image_preprocess, theirs)
        scale = self.proposer.size / side
        if scale == 1:
            return self.proposer.head.propose(seen, sizes)
        shape = [round(length * scale) for length in images.shape[2:]]
        seen = interpolate(seen, shape, mode="bicubic", antialias=True)
        found = self.proposer.head.propose(seen, (sizes * scale).round().clamp(min=1).to(sizes))
        return [Proposals(each.boxes / scale, each.logits) for each in found]

    def read(self, images: Images, boxes: Sequence[Float[Tensor, "_ 4"]]) -> Embeddings:
        """Return the tower's embedding of every box (pixels of the canvas), picture by picture; not normalised."""
        height, width = images.shape[2:]
        fractions = [each / each.new_tensor([width, height] * 2) for each in boxes]
        return torch.cat(self.reads.boxes(self.reads.features(images), images, fractions)).float()

    @property
    def route(self) -> str:
        """How regions are read: the map's route; the whole attention pool of CLIP's ResNets."""
        return "attention" if isinstance(self.reads, StageFeatures) else self.config.route

    def _class_loss(
        self, logits: Float[Tensor, "regions words"], classes: Int[Tensor, " regions"]
    ) -> Float[Tensor, ""]:
        weight = self.config.background
        if self.config.loss == "weighted":
            return weighted_cross_entropy(logits, classes, background_weight=weight)
        return focal_cross_entropy(logits, classes, background_weight=weight, focus=self.config.focus)


@dataclass(frozen=True, slots=True, eq=False)
class C4Candidates:
    """Proposals of pictures, moved, and of all together what the tower read there and the proposer's logits."""

    head: C4
    boxes: Sequence[Float[Tensor, "_ 4"]]
    regions: Float[Tensor, "regions dim"]
    objectness: Float[Tensor, " regions"]

    @torch.no_grad()
    def scores(
        self, words: Embeddings, novel: Sequence[bool], owner: Labels | None = None
    ) -> list[Float[Tensor, "_ words"]]:
        """Return the score of every word for every box; see ``Candidates``. NaN where raw objectness is negative."""
        count, how = len(novel) + 1, self.head.config.objectness
        owner = torch.arange(count, device=words.device) if owner is None else owner
        scores = reduce_synonyms(self.head.logits(self.regions, words), owner, count).softmax(dim=1)[:, :-1]
        if how != "none":
            scores = with_objectness(scores, self.objectness, how)
        return list(scores.split([len(boxes) for boxes in self.boxes]))
