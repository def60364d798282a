"""MaskFormer on a frozen CLIP: a fixed number of masks for a picture, each with an embedding among words.

    pixels   the pyramid's finest map, ``channels`` wide
    query    attends to the coarsest map, layer after layer
    mask     sigmoid(query . pixels)
    words    cos(MLP(query), [words; no object]) / 0.01     no object is a learned vector

Every layer's masks are matched with the true ones, and learn from those they match (cross-entropy, focal and dice
loss). Only words that were asked for in training take part, so that novel ones do not exist there; afterwards any do.

Source: Cheng et al., MaskFormer, NeurIPS 2021 (arXiv 2107.06278), here transformers' parts; Liang et al., OVSeg, CVPR
2023 (arXiv 2210.04150), ``facebookresearch/ov-seg`` ``open_vocab_seg/modeling``. There a Swin or a ResNet is below it,
trained along; here it is the CLIP, which stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoConfig
from transformers import MaskFormerConfig as PartsConfig
from transformers.models.maskformer.modeling_maskformer import (
    MaskFormerHungarianMatcher,
    MaskFormerLoss,
    MaskformerMLPPredictionHead,
    MaskFormerPixelDecoder,
    MaskFormerTransformerModule,
)

from closeup._types import DenseMap, Embeddings, Images, Labels
from closeup.heads.backbone import ClipLevels
from closeup.heads.maskformer_config import MaskFormerConfig
from closeup.match import cosine
from closeup.models.clip import Clip
from closeup.models.region_features import per_picture

LOSSES = {"classes": "loss_cross_entropy", "masks": "loss_mask", "dice": "loss_dice"}
"""Our names of the losses, and transformers'."""


@dataclass(frozen=True, slots=True, eq=False)
class MaskQueries:
    """What the queries found in pictures: an embedding among words and a mask's logits each, and CLIP's own map."""

    embeddings: Float[Tensor, "batch queries dim"]
    masks: Float[Tensor, "batch queries lines columns"]
    dense: DenseMap


class MaskFormer(nn.Module):
    """The network; the CLIP's image tower is no part of the module, and stays as it is.

    ``words`` are the embeddings of the words that it learns, of which those marked ``novel`` do not exist.

    Raises:
        ModelError: the tower has fewer than four blocks.
    """

    kind: ClassVar[str] = "maskformer"
    words: Embeddings
    places: Labels

    def __init__(
        self, clip: Clip, words: Embeddings, novel: Sequence[bool], config: MaskFormerConfig | None = None
    ) -> None:
        super().__init__()
        self.config = config = config or MaskFormerConfig()
        self.pyramid = ClipLevels(clip, blocks=config.blocks, route=config.route)
        *finer, coarsest = self.pyramid.widths
        self.pixels = MaskFormerPixelDecoder(
            in_features=coarsest,
            lateral_widths=finer,
            feature_size=config.channels,
            mask_feature_size=config.channels,
        )
        self.queries = MaskFormerTransformerModule(coarsest, _parts(config))
        self.masks = MaskformerMLPPredictionHead(config.hidden, config.hidden, config.channels)
        self.meaning = MaskformerMLPPredictionHead(config.hidden, config.words_hidden, clip.dim, num_layers=2)
        self.nothing = nn.Parameter(torch.randn(1, clip.dim) * clip.dim**-0.5)
        known = ~torch.tensor(list(novel), dtype=torch.bool, device=words.device)
        self.register_buffer("words", words[known], persistent=False)
        self.register_buffer("places", torch.where(known, known.cumsum(0) - 1, -1), persistent=False)
        weights = {
            "loss_cross_entropy": config.class_weight,
            "loss_mask": config.mask_weight,
            "loss_dice": config.dice_weight,
        }
        self._weights = {name: weights[theirs] for name, theirs in LOSSES.items()}
        matcher = MaskFormerHungarianMatcher(config.class_weight, config.mask_weight, config.dice_weight)
        self.criterion = MaskFormerLoss(int(known.sum()), matcher, weights, config.nothing_weight)
        # Settings are no weights: they are not saved.
        self.criterion.register_buffer("empty_weight", self.criterion.empty_weight, persistent=False)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss of a batch as ``FVit.forward`` has it, and its parts; regions of novel words are left out.

        Regions of one word in a picture are one mask, as OVSeg has it, unless the settings keep things apart.
        """
        layers, pixels, _ = self._queried(batch["images"])
        with torch.autocast(pixels.device.type, enabled=False):  # as transformers' matching and losses want it
            found = [(self._logits(layer.float(), self.words), self._masked(layer, pixels)) for layer in layers]
            labels, masks = self._targets(batch)
            *others, (logits, drawn) = found
            aside = [{"masks_queries_logits": masks, "class_queries_logits": logits} for logits, masks in others]
            given = self.criterion(drawn, logits, masks, labels, aside)
        losses = {
            name: weight * torch.stack([loss for key, loss in given.items() if key.startswith(LOSSES[name])]).sum()
            for name, weight in self._weights.items()
        }
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    @torch.no_grad()
    def find(self, images: Images) -> MaskQueries:
        """Return the masks of pictures on their canvas, at the stride of the finest map; call in eval mode."""
        layers, pixels, dense = self._queried(images)
        return MaskQueries(self.meaning(layers[-1]).float(), self._masked(layers[-1], pixels), dense)

    def logits(
        self, embeddings: Float[Tensor, "queries dim"], words: Float[Tensor, "words dim"]
    ) -> Float[Tensor, "queries columns"]:
        """Return cosines over the temperature with any words, and, last, with no object."""
        return cosine(embeddings, torch.cat([words, self.nothing.to(words)])) / self.config.temperature

    def _logits(
        self, layer: Float[Tensor, "batch queries hidden"], words: Embeddings
    ) -> Float[Tensor, "batch queries columns"]:
        embeddings: Tensor = self.meaning(layer)
        logits: Tensor = self.logits(embeddings.flatten(0, 1), words).unflatten(0, embeddings.shape[:2])
        return logits

    def _masked(
        self, layer: Float[Tensor, "batch queries hidden"], pixels: Float[Tensor, "batch channels lines columns"]
    ) -> Float[Tensor, "batch queries lines columns"]:
        return torch.einsum("bqc,bchw->bqhw", self.masks(layer).float(), pixels.float())

    def _queried(
        self, images: Images
    ) -> tuple[list[Float[Tensor, "batch queries hidden"]], Float[Tensor, "batch channels lines columns"], DenseMap]:
        """Return the queries after each layer, the map that masks are read off, and CLIP's own dense map."""
        levels, dense = self.pyramid.levels(images)
        pixels = self.pixels(levels).last_hidden_state
        found = self.queries(levels[-1], output_hidden_states=True, return_dict=True)
        # The first state is the input; the last is normed already, and repeated as the result.
        between = [self.queries.decoder.layernorm(state) for state in found.hidden_states[1:-1]]
        return [*between, found.last_hidden_state], pixels, dense

    def _targets(self, batch: Mapping[str, Tensor]) -> tuple[list[Labels], list[Float[Tensor, "_ height width"]]]:
        """Return the words of each picture's masks, and the masks, on the canvas."""
        counts = per_picture(batch["owners"], len(batch["images"]))
        words = self.places[batch["labels"]].split(counts)
        labels, masks = [], []
        for given, planes in zip(words, batch["masks"].split(counts), strict=True):
            # A view that cuts a picture may leave a region's box in it and none of its mask.
            known = (given >= 0) & planes.flatten(1).any(dim=1)
            kinds = given[known] if self.config.regions == "things" else given[known].unique()
            labels.append(kinds)
            masks.append((planes[known] if self.config.regions == "things" else _unions(planes, given, kinds)).float())
        return labels, masks


def _unions(
    planes: Bool[Tensor, "regions height width"], words: Labels, kinds: Int[Tensor, " kinds"]
) -> Bool[Tensor, "kinds height width"]:
    """Return one plane for each kind of word, all regions of it together."""
    if not len(kinds):
        return planes.new_zeros(0, *planes.shape[1:])
    return torch.stack([planes[words == kind].any(dim=0) for kind in kinds])


def _parts(config: MaskFormerConfig) -> PartsConfig:
    decoder = AutoConfig.for_model(
        "detr",
        num_queries=config.queries,
        d_model=config.hidden,
        decoder_layers=config.layers,
        decoder_attention_heads=config.heads,
        decoder_ffn_dim=config.feed_forward,
        dropout=config.dropout,
    )
    return PartsConfig(decoder_config=decoder)
