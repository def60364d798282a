"""CAT-Seg on a CLIP: cosines of places and words, made smooth and sharp, give every word a logit at every pixel.

    map    = dense map, the class token its residual                 CLIP, whose queries and values learn too
    words  = a sentence around each word                             likewise
    logit  = aggregator(cos(map, words), guided by earlier blocks)   ``cost_aggregator``
    loss   = yes or no for every word at every pixel

Source: Cho et al., CAT-Seg, CVPR 2024 (arXiv 2303.11797); ``KU-CVLAB/CAT-Seg`` ``cat_seg/cat_seg_model.py``. There
only square pictures of ViTs go in; here any picture and any tower. CLIPSelf (arXiv 2310.01403) puts its own map here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from closeup._types import Embeddings, Images, Labels
from closeup.errors import ModelError
from closeup.heads.catseg_config import CatSegConfig
from closeup.heads.cost_aggregator import Aggregator
from closeup.models.attention_weights import queries_and_values
from closeup.models.blocks import reached
from closeup.models.clip import Clip
from closeup.models.image_copy import whole_copy
from closeup.models.region_features import per_picture
from closeup.models.stage_tower import StageTower


class CatSeg(nn.Module):
    """The aggregator, and those weights of a copy of the CLIP that learn; the CLIP itself stays as it is.

    ``sentences`` are those around each word that it learns, as text; those of words marked ``novel`` are left out.

    Raises:
        ModelError: the tower has fewer than three blocks, or is to learn and has no attention.
    """

    kind: ClassVar[str] = "catseg"
    places: Labels

    def __init__(
        self,
        clip: Clip,
        sentences: Sequence[Sequence[str]],
        novel: Sequence[bool],
        config: CatSegConfig | None = None,
    ) -> None:
        super().__init__()
        self.config = config = config or CatSegConfig()
        self.blocks = config.blocks or _tapped(clip)
        tuned = config.tune != "nothing"
        self.clip = whole_copy(clip) if tuned else clip
        learned = _learned(self.clip, config, self.blocks) if tuned else {}
        # The towers are no part of the module, so that what is frozen is neither trained, nor moved, nor saved.
        self.clip_weights = nn.ParameterDict({name.replace(".", "/"): parameter for name, parameter in learned.items()})
        self.guides = _Guides(self.clip, self.blocks, config.guides)
        self.aggregator = Aggregator(clip.dim, (clip.dim, *config.guides), config)
        known = ~torch.tensor(list(novel), dtype=torch.bool)
        chosen = [texts for texts, keep in zip(sentences, known.tolist(), strict=True) if keep]
        self._sentences = len(chosen[0]) if chosen else 0
        self._tokens = clip.tokenizer([text for texts in chosen for text in texts])
        self.register_buffer("places", torch.where(known, known.cumsum(0) - 1, -1), persistent=False)
        self._words: Embeddings | None = None

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss of a batch as ``FVit.forward`` has it; regions of novel words are left out.

        Pixels that belong to no word that is learned are no for all of them, as officially; those beside the picture
        take no part.
        """
        images = batch["images"]
        logits = self._logits(images, self._learned_words(), pool=self.config.pool)
        with torch.autocast(images.device.type, enabled=False):
            logits = F.interpolate(logits.float(), images.shape[2:], mode="bilinear", align_corners=False)
            inside = _inside(batch["sizes"], images.shape[2], images.shape[3])
            losses = F.binary_cross_entropy_with_logits(logits, self._targets(batch, logits.shape[1]), reduction="none")
            loss = losses.mean(dim=1)[inside].mean()
        return {"loss": loss}

    @torch.no_grad()
    def score(self, images: Images, words: Float[Tensor, "words dim"]) -> Float[Tensor, "batch words lines columns"]:
        """Return each word's probability at each place, four times the dense map's rows and columns; in eval mode.

        Words are embeddings of ``clip``'s text tower: what one of them scores depends on the others.
        """
        return self._logits(images, words, pool=1).float().sigmoid()

    def _logits(
        self, images: Images, words: Float[Tensor, "words dim"], *, pool: int
    ) -> Float[Tensor, "batch words lines columns"]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and len(self.clip_weights) > 0):
            levels, maps = self.clip.features_and_dense(images, self.blocks, route=self.config.route, normalize=False)
        guidance = [maps, *self.guides(levels, (maps.shape[2], maps.shape[3]))]
        logits: Tensor = self.aggregator(
            maps, words.expand(len(images), 1, -1, -1).transpose(1, 2), guidance, pool=pool
        )
        return logits

    def _learned_words(self) -> Embeddings:
        """Return the embeddings of the words that it learns, with gradients where the text tower learns."""
        if self.config.tune == "both":
            return self._embedded()
        if self._words is None:
            with torch.no_grad():
                self._words = self._embedded()
        return self._words

    def _embedded(self) -> Embeddings:
        texts = self.clip.encode_tokens(self._tokens).unflatten(0, (-1, self._sentences))
        return F.normalize(texts.mean(dim=1), dim=1)

    def _targets(self, batch: Mapping[str, Tensor], words: int) -> Float[Tensor, "batch words height width"]:
        counts = per_picture(batch["owners"], len(batch["images"]))
        targets = batch["images"].new_zeros(len(counts), words, *batch["images"].shape[2:])
        known = self.places[batch["labels"]].split(counts)
        for target, labels, planes in zip(targets, known, batch["masks"].split(counts), strict=True):
            for label, plane in zip(labels.tolist(), planes, strict=True):
                if label >= 0:
                    target[label][plane] = 1.0
        return targets


class _Guides(nn.Module):
    """Two earlier maps at twice and four times the rows and columns of the dense map.

    A ViT's are made larger by one transposed convolution each; of a tower of stages, whose maps have these sizes
    already, channels alone are changed.
    """

    def __init__(self, clip: Clip, blocks: tuple[int, ...], channels: tuple[int, int]) -> None:
        super().__init__()
        sample = torch.zeros(1, 3, *clip.image_size, device=clip.device)
        with torch.no_grad():
            widths = [level.shape[1] for level in clip.features(sample, blocks)]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width, count, 1)
            if isinstance(clip.tower, StageTower)
            else nn.ConvTranspose2d(width, count, scale, stride=scale)
            for width, count, scale in zip(widths, channels, (2, 4), strict=True)
        )

    def forward(
        self, levels: Sequence[Float[Tensor, "batch _ _ _"]], grid: tuple[int, int]
    ) -> list[Float[Tensor, "batch _ _ _"]]:
        """Return the two maps."""
        guides = []
        for convolution, level, scale in zip(self.convolutions, levels, (2, 4), strict=True):
            guide = convolution(level)
            size = (scale * grid[0], scale * grid[1])
            if guide.shape[2:] != size:
                guide = F.interpolate(guide, size, mode="bilinear", align_corners=False)
            guides.append(guide)
        return guides


def _tapped(clip: Clip) -> tuple[int, int]:
    """Return two blocks: 3 and 7 of 12, 7 and 15 of 24, as the official ones; of stages the two before the last."""
    depth = clip.blocks
    if depth < 3:
        raise ModelError(f"The tower has {depth} blocks, and CAT-Seg is guided by two before the last.")
    if isinstance(clip.tower, StageTower):
        return depth - 2, depth - 3
    return depth // 3 - 1, 2 * depth // 3 - 1


def _learned(clip: Clip, config: CatSegConfig, blocks: tuple[int, ...]) -> dict[str, nn.Parameter]:
    """Return the weights that learn, by their name in the model."""
    image = queries_and_values(clip.tower.visual, "visual")
    if not image:
        raise ModelError(
            f"The {clip.tower.family} tower of {clip.name!r} has no attention whose queries and values could learn. "
            "Set tune to nothing."
        )
    patch = torch.zeros(1, 3, *clip.image_size, device=clip.device)
    with torch.enable_grad():
        levels, maps = clip.features_and_dense(patch, blocks, route=config.route, normalize=False)
        moving = reached(torch.stack([level.sum() for level in (*levels, maps)]).sum(), image)
    for name in image.keys() - moving.keys():
        image[name].requires_grad_(False)
    if config.tune == "image":
        return moving
    texts: dict[str, nn.Parameter] = {}
    for name, part in clip.model.named_children():
        if part is not clip.tower.visual:
            texts |= queries_and_values(part, name)
    if not texts:
        raise ModelError(
            f"The text tower of {clip.name!r} has no attention whose queries and values could learn. Set tune to image."
        )
    return moving | texts


def _inside(sizes: Tensor, height: int, width: int) -> Bool[Tensor, "batch height width"]:
    """Return which pixels of each canvas show the picture, which lies in its top left corner."""
    rows = torch.arange(height, device=sizes.device)[None, :, None] < sizes[:, 0, None, None]
    cols = torch.arange(width, device=sizes.device)[None, None, :] < sizes[:, 1, None, None]
    return rows & cols
