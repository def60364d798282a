"""The settings of CLIPSelf, the paper's and the released scripts' among them."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from closeup.errors import ConfigError
from closeup.recipes.config import TrainConfig
from closeup.recipes.region_config import RegionConfig

COCO_IMAGES = 118_287
"""Pictures of COCO train2017, on which the paper trains."""


@dataclass(frozen=True)
class ClipSelfConfig(RegionConfig):
    """What CLIPSelf distils, from which regions, into what; how long and how fast is ``TrainConfig``'s.

    Defaults are those of the paper (arXiv 2310.01403) and of the released scripts where the two agree.

    Raises:
        ConfigError: a value outside its range.
    """

    keep_global: float = 0.0
    """Weight of the term that holds whole-image embeddings to the teacher's; 0 in the paper."""
    keep_crops: int = 1
    """How many of a picture's regions, cut out, that term holds besides the whole picture."""
    image_only: bool = False
    """Distil the embedding of the whole picture at the student's size and no regions: an ablation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("keep_global", "keep_crops"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"`{name}` must not be negative, but got {getattr(self, name)}.")
        self._check_alone()

    def _check_alone(self) -> None:
        if self.image_only and self.window is not None:
            raise ConfigError("`image_only` has no dense map whose attention `window` could confine. Drop one.")
        if self.image_only and self.keep_global:
            raise ConfigError("`image_only` has no region term that `keep_global` could be weighed against. Drop one.")


def paper(images: int = COCO_IMAGES) -> tuple[ClipSelfConfig, TrainConfig]:
    """Return the paper's training on a number of pictures: 6 epochs, batches of 16, gradients really exchanged.

    AdamW, rate 1e-5, decay 0.1, 1000 steps of warm-up, cosine to 0. The betas and epsilon are those that the scripts
    end up with for EVA02 models; for names with "vit" in them they would be (0.9, 0.98) and 1e-6.
    Source: arXiv 2310.01403; ``wusize/CLIPSelf`` ``scripts/*.sh``, ``training/params.py``.
    """
    return ClipSelfConfig(), _training(steps=6 * ceil(images / 16), batch_size=16)


def released(images: int = COCO_IMAGES) -> tuple[ClipSelfConfig, TrainConfig]:
    """Return what the released scripts did: the same number of steps, each on the 2 pictures of a single device.

    ``training/clipself.py`` calls the model inside its data-parallel wrapper, so gradients were never exchanged:
    each of 8 devices learned alone from its eighth of the pictures, and the first one's weights were saved.
    """
    return ClipSelfConfig(), _training(steps=6 * ceil(ceil(images / 8) / 2), batch_size=2)


def tiny(images: int) -> tuple[ClipSelfConfig, TrainConfig]:
    """Return what suits a model as small as tiny on the world: one visit to each of a number of pictures.

    Small models learn from a rate a hundred times as high, and Muon takes them further with the same pictures. Most
    steps are at half the size of the scenes, which costs a fifth and teaches as much a picture; the few at full size
    make the map good there too. The patterns of these choices are in ``docs/log.md``.
    """
    scales = (128,) * 8 + (192,) * 2 + (256,)
    training = TrainConfig(
        steps=ceil(images / 8),
        batch_size=8,
        rate=1e-3,
        optimizer="muon",
        betas=(0.9, 0.999),
        epsilon=1e-8,
        warmup=100,
        clip_norm=1.0,
        workers=4,
        log_every=50,
        save_every=500,
    )
    return ClipSelfConfig(size=256, scales=scales), training


def _training(*, steps: int, batch_size: int) -> TrainConfig:
    return TrainConfig(
        steps=steps,
        batch_size=batch_size,
        rate=1e-5,
        weight_decay=0.1,
        betas=(0.9, 0.999),
        epsilon=1e-8,
        warmup=1000,
        workers=4,
    )
