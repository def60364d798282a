"""Recipe ``maskadapt``: a CLIP learns to read crops of which all but a mask is blank.

    v_i = crop of mask i, its surroundings blank or, with prompts, learned tokens       the image tower
    t_i = the noun of mask i                                                            the text tower, frozen
    L   = contrastive loss of all v and t of a batch, each other's negatives            ``recipes.contrastive``

Crops are those that OVSeg makes when it predicts (``regions.masked_crops``), and each brings its mask along.

Source: Liang et al., OVSeg, CVPR 2023 (arXiv 2210.04150), Sections 3.2 and 3.3; ``facebookresearch/ov-seg``
``open_clip_training``. There a mask is read off the crop's fill colour, crops keep their shape in training and lose it
in prediction, and equal nouns are negatives of each other (``equal_nouns``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from closeup._types import Embeddings, Images, Labels
from closeup.data.map_regions import with_map_regions
from closeup.data.record import Reader, Record
from closeup.errors import DataError, InputError
from closeup.models.blocks import reached
from closeup.models.clip import Clip
from closeup.models.mask_prompt import give_prompts, prompts_of
from closeup.recipes.contrastive import contrastive_loss
from closeup.recipes.gather import gather_ragged
from closeup.recipes.maskadapt_config import MaskAdaptConfig
from closeup.recipes.order import visited
from closeup.recipes.recipe import Recipe
from closeup.regions.masked_crops import masked_crops
from closeup.text import Vocabulary, build_bank

HIGHEST_SCALE = math.log(100)
"""Of the learned factor on cosines, as its logarithm (CLIP, arXiv 2103.00020)."""

RATIO = math.log(4 / 3)
"""Of the sides of what is seen of a crop, at most, as a logarithm; torchvision's own."""


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """Crops of one picture, the mask on each, and its noun."""

    crops: Float[Tensor, "count 3 rows cols"]
    shown: Bool[Tensor, "count rows cols"]
    labels: Labels


class MaskAdapt(Recipe):
    """Learning from masks and their nouns, for any tower; prompts for those that are made of tokens.

    ``reader`` gives masks with labels, or label maps, whose names are the nouns: a data set's own, or pairs mined from
    captions. Pictures without any teach nothing. Prompts that the model has already learn on.

    Raises:
        DataError: no pictures, or pictures without labelled masks.
        ModelError: prompts for a tower without tokens.
        InputError: more places for prompts than blocks, or a model with prompts of other places.
    """

    name: ClassVar[str] = "maskadapt"
    divisible = False

    def __init__(
        self,
        clip: Clip,
        reader: Reader,
        config: MaskAdaptConfig | None = None,
        *,
        seed: int = 0,
        cache: object = None,
        probe: Callable[[], Mapping[str, float]] | None = None,
    ) -> None:
        if len(reader) == 0 or not reader.names:
            raise DataError("The data set has no pictures, or no words for its masks. Give one that has.")
        self.clip, self._reader, self._seed, self._probe = clip, reader, seed, probe
        self.config = config = config or MaskAdaptConfig()
        if config.tune != "tower":
            _give_prompts(clip, config, seed)
        bank = build_bank(clip, Vocabulary(reader.names), templates=config.templates)
        # The first string of each name is the name itself.
        first = torch.stack([(bank.owner == label).nonzero()[0, 0] for label in range(len(bank))])
        self.module: MaskText = MaskText(clip, bank.embeddings[first].to(clip.device), config)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the prompts, the parameters of the image tower, or both, and the factor on cosines."""
        chosen = dict(self.module.visual.named_parameters(prefix="visual"))
        prompts = prompts_of(self.clip.tower)
        tuned = set() if prompts is None else {id(parameter) for parameter in prompts.parameters()}
        kinds = {"prompts": (True,), "tower": (False,), "both": (True, False)}[self.config.tune]
        wanted = {name: parameter for name, parameter in chosen.items() if (id(parameter) in tuned) in kinds}
        for parameter in wanted.values():
            parameter.requires_grad_(True)
        # Data-parallel training would wait for ever for the gradient of what takes no part in an embedding.
        return reached(self.module.blank().sum(), wanted) | {"scale": self.module.scale}

    def sample(self, position: int) -> Cut:
        """Return crops of a picture's masks, drawn for this visit."""
        record = self._masked(self._reader[visited(position, len(self._reader), self._seed)])
        height, width = self.clip.image_size
        if record.masks is None or record.labels is None:
            raise DataError(
                f"Record {record.id!r} has no labelled masks. Give a data set that has them, or label maps."
            )
        rng = np.random.default_rng([self._seed, 5, position])
        usable = ((record.labels >= 0) & record.masks.flatten(1).any(dim=1)).nonzero()[:, 0].numpy()
        rows = torch.from_numpy(np.sort(rng.permutation(usable)[: self.config.masks_per_picture]))
        image, _ = self.clip.preprocess(record.load(), policy="native")
        crops, shown = masked_crops(image, record.masks[rows], (height, width))
        seen = [_zoomed(crop, mask, self.config.least_area, rng) for crop, mask in zip(crops, shown, strict=True)]
        if not seen:
            return Cut(crops, shown, record.labels[rows])
        crops, shown = (torch.stack(column) for column in zip(*seen, strict=True))
        return Cut(crops, shown, record.labels[rows])

    def collate(self, samples: Sequence[Cut]) -> dict[str, Tensor]:
        """Lay the crops of all pictures side by side."""
        return {
            "crops": torch.cat([sample.crops for sample in samples]),
            "shown": torch.cat([sample.shown for sample in samples]),
            "labels": torch.cat([sample.labels for sample in samples]),
        }

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Leave gains, biases, norms (open_clip's rule) and prompts undecayed."""
        return parameter.ndim >= 2 and not any(part in name for part in ("bn", "ln", "bias", "mask_prompts"))

    def after_step(self) -> None:
        """Keep the factor on cosines at 100 or below."""
        with torch.no_grad():
            self.module.scale.clamp_(max=HIGHEST_SCALE)

    def evaluate(self) -> dict[str, float]:
        """Return what the probe measures."""
        return dict(self._probe()) if self._probe is not None else {}

    def _masked(self, record: Record) -> Record:
        return with_map_regions(record) if record.masks is None and record.label_map is not None else record


def _give_prompts(clip: Clip, config: MaskAdaptConfig, seed: int) -> None:
    """Give the tower new prompts, unless it has some; InputError where those are of other places."""
    has = prompts_of(clip.tower)
    if has is None:
        give_prompts(clip.tower, config.depth, shared=config.shared, seed=seed)
    elif has.depth != config.depth or has.shared != config.shared:
        raise InputError(
            f"The model {clip.name!r} has mask prompts at {has.depth} places{' that share one' if has.shared else ''}, "
            f"and {config.depth} are asked for. Give the same depth, or start from a model without prompts."
        )


def _zoomed(
    crop: Float[Tensor, "3 rows cols"], mask: Bool[Tensor, "rows cols"], least: float, rng: np.random.Generator
) -> tuple[Float[Tensor, "3 rows cols"], Bool[Tensor, "rows cols"]]:
    """Return a part of a crop, of a random shape and place, stretched to the crop's size; the whole where none fits."""
    height, width = mask.shape
    for _ in range(10):
        side, ratio = math.sqrt(rng.uniform(least, 1)), math.exp(rng.uniform(-RATIO, RATIO) / 2)
        lines, columns = round(height * side / ratio), round(width * side * ratio)
        if 0 < lines <= height and 0 < columns <= width:
            top, left = int(rng.integers(height - lines + 1)), int(rng.integers(width - columns + 1))
            part = (slice(top, top + lines), slice(left, left + columns))
            seen = F.interpolate(crop[None, :, *part], (height, width), mode="bicubic", align_corners=False)[0]
            shown = F.interpolate(mask[None, None, *part].float(), (height, width), mode="nearest")[0, 0] > 0
            return seen, shown
    return crop, mask


class MaskText(nn.Module):
    """The contrastive loss of masked crops and their nouns, around the image tower, which stays in eval mode."""

    def __init__(self, clip: Clip, nouns: Embeddings, config: MaskAdaptConfig) -> None:
        super().__init__()
        self.visual, self.scale = clip.tower.visual, clip.model.logit_scale
        self._clip, self._config = clip, config
        self.register_buffer("nouns", nouns, persistent=False)

    nouns: Embeddings

    def train(self, mode: bool = True) -> MaskText:
        """Keep the tower in eval mode."""
        super().train(mode)
        self.visual.eval()
        return self

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss of a batch as ``MaskAdapt.collate`` makes it; zero where it has no mask."""
        crops = self._encoded(batch["crops"], batch["shown"]) if len(batch["crops"]) else self.blank()[:0]
        images, owners = gather_ragged(crops), gather_ragged(batch["labels"])
        if not len(images):
            return {"loss": crops.sum() + 0 * self.scale}
        same = owners[:, None] == owners[None, :] if self._config.equal_nouns == "apart" else None
        with torch.autocast(images.device.type, enabled=False):
            return {"loss": contrastive_loss(images.float(), self.nouns[owners], self.scale.exp().reshape(()), same)}

    def blank(self) -> Embeddings:
        """Return the embedding of one blank crop, of which every parameter that can learn is part."""
        size = self._clip.image_size
        crop = torch.zeros(1, 3, *size, device=self.nouns.device)
        return self._encoded(crop, torch.zeros(1, *size, dtype=torch.bool, device=self.nouns.device))

    def _encoded(self, crops: Images, shown: Bool[Tensor, "batch height width"]) -> Embeddings:
        # Prompts that a tower brings along take part in its own learning too.
        if prompts_of(self._clip.tower) is not None:
            return self._clip.encode_masked(crops, shown, normalize=True)
        return F.normalize(self._clip.encode_image(crops), dim=1)
