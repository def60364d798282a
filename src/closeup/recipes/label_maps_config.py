"""The settings of heads that learn from label maps, and DenseCLIP's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from closeup.errors import ConfigError
from closeup.recipes.config import TrainConfig
from closeup.recipes.detection_config import Presets, SeenConfig, Settings


@dataclass(frozen=True)
class LabelMapConfig(SeenConfig):
    """The pictures that a head sees, and the sentences around its words.

    Raises:
        ConfigError: a value outside its range.

    Source of the defaults: ``raoyongming/DenseCLIP`` ``segmentation/configs``.
    """

    size: int = 512
    """Side of the canvas in pixels."""
    templates: str = "simple"
    """The sentences around a word."""
    jitter: tuple[float, float] = (0.5, 2.0)
    """The least and the greatest length of a picture's shortest side over that of the canvas."""
    flip: bool = True
    """Mirror half of the pictures."""
    colours: bool = True
    """Change brightness, contrast, saturation and hue."""
    max_share: float = 0.75
    """The greatest share of one class in the labelled pixels of a cut, where ten draws find such a one; 1 for any."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.jitter[0] <= self.jitter[1]:
            raise ConfigError(f"`jitter` must be two sizes above 0, the smaller first, but got {self.jitter}.")
        if not 0 < self.max_share <= 1:
            raise ConfigError(f"`max_share` must be a share above 0 and up to 1, but got {self.max_share}.")


def paper_resnet(images: int) -> Settings:
    """Return DenseCLIP's training on ADE20K with a ResNet, whatever the number of pictures.

    80,000 steps of 32 pictures of 512 px, AdamW at 1e-4 with decay 1e-4, 1500 steps of warm-up, a polynomial fall to
    1e-6.

    Source: ``raoyongming/DenseCLIP`` ``segmentation/configs``, of ResNets.
    """
    training = TrainConfig(
        steps=80_000,
        batch_size=32,
        rate=1e-4,
        weight_decay=1e-4,
        betas=(0.9, 0.999),
        epsilon=1e-8,
        warmup=1500,
        final_rate=0.01,
        decay="polynomial",
        workers=4,
        save_every=2500,
    )
    return LabelMapConfig(), training, {}


def paper_vit(images: int) -> Settings:
    """Return DenseCLIP's training on ADE20K with ViT-B/16: as with a ResNet, but pictures of 640 px.

    There a picture's longest side is at most 3.2 times the canvas, here 4 times as for the others.

    Source: ``raoyongming/DenseCLIP`` ``segmentation/configs``, of ViT-B/16.
    """
    seen, training, head = paper_resnet(images)
    return seen.replace(size=640), training, head


def tiny(images: int) -> Settings:
    """Return what suits a head on tiny and the world: four visits to each of a number of pictures, narrow, 128 px."""
    _, training, _ = paper_resnet(images)
    return (
        LabelMapConfig(size=128, jitter=(0.75, 1.5), colours=False),
        replace(
            training,
            steps=4 * ceil(images / 8),
            batch_size=8,
            rate=2e-3,
            warmup=50,
            workers=2,
            log_every=25,
            save_every=250,
        ),
        {"channels": 64, "hidden": 64, "contexts": 4, "decoder_width": 64},
    )


LABEL_MAP_PRESETS: Presets = {"paper-resnet": paper_resnet, "paper-vit": paper_vit, "tiny": tiny}
"""Of dense predictors."""
