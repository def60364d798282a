"""The settings of RegionCLIP, and the paper's."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal, TypeAlias

from closeup.errors import ConfigError
from closeup.recipes import clipself_config
from closeup.recipes.config import TrainConfig
from closeup.recipes.region_config import RegionConfig, Regions
from closeup.recipes.region_text import FEDERATED, TEMPERATURE, THRESHOLD

TeacherView: TypeAlias = Literal["auto", "map", "crops"]
"""How the teacher sees a region: read off the whole picture as by the student, or cut out."""

Objective: TypeAlias = Literal["concepts", "nouns"]
"""RegionCLIP's own losses, or binary labels of nouns: the baseline of CLIPSelf's Table 6."""

CC3M_IMAGES = 3_000_000
"""Pictures of CC3M, on which the paper trains."""


@dataclass(frozen=True)
class RegionClipConfig(RegionConfig):
    """What RegionCLIP learns from: which concepts, which regions, whose labels, and which losses.

    Defaults are those of the official configuration (``configs/pretrain/RegionCLIP_RN50.yaml``, ``pretrain.sh``).

    Raises:
        ConfigError: a value outside its range, or no loss at all.
    """

    regions: Regions = "proposals"
    """What regions are; the official ones are boxes of an RPN, or random ones."""
    max_regions: int = 100
    """Regions of one picture in one step (``MODEL.CLIP.NUM_REGIONS``)."""
    concepts: str = ""
    """A file of concepts, one a line; ``closeup concepts`` makes one from captions."""
    templates: str = "openai-80"
    """The sentences around a concept; the official 81 are CLIP's 80 and the bare name."""
    teacher: TeacherView = "auto"
    """How the teacher labels a region; ``auto`` is read off the picture for CLIP's ResNets, as in the official code,
    and cut out for every other tower, whose dense map knows little before it is adapted."""
    teacher_model: str = ""
    """Another model as the teacher, with concept embeddings of its own; empty is the model as it was."""
    objective: Objective = "concepts"
    """What is learned from labels: RegionCLIP's own losses, or CLIPSelf's baseline."""
    temperature: float = TEMPERATURE
    """Of the softmax over concepts, in labels and in losses."""
    threshold: float = THRESHOLD
    """The teacher's probability above which a region is kept."""
    contrast: float = 1.0
    """Weight of the contrastive loss of regions and concepts."""
    distill: float = 1.0
    """Weight of the distillation of the teacher's concept probabilities."""
    image_text: float = 1.0
    """Weight of the contrastive loss of whole pictures and captions; pictures without a caption have none."""
    negatives: Literal["gathered", "local"] = "gathered"
    """Whether regions are told from those of all devices, or of their own alone as in the official code."""
    nouns: int = FEDERATED
    """Nouns that a step learns against, for the objective ``nouns``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nouns < 1:
            raise ConfigError(f"`nouns` must be at least 1, but got {self.nouns}.")
        if not self.temperature > 0 or not 0 <= self.threshold < 1:
            raise ConfigError(
                f"`temperature` must be above 0 and `threshold` from 0 to below 1, but got {self.temperature} and "
                f"{self.threshold}."
            )
        weights = {name: getattr(self, name) for name in ("contrast", "distill", "image_text")}
        if any(not weight >= 0 for weight in weights.values()):
            raise ConfigError(f"Weights of losses must not be negative, but got {weights}.")
        if self.objective == "concepts" and not any(weights.values()):
            raise ConfigError("All losses have the weight 0. Give one of `contrast`, `distill` and `image_text` more.")


def paper(images: int = CC3M_IMAGES) -> tuple[RegionClipConfig, TrainConfig]:
    """Return the official training on a number of pictures: 19 epochs, batches of 96, SGD.

    Rate 0.002, momentum 0.9, decay 1e-4, 1000 steps of warm-up (``configs/pretrain/RegionCLIP_RN50.yaml``). There the
    rate falls to a tenth at 300,000 and at 525,000 of 600,000 steps, here on a cosine; there each parameter's gradient
    is clipped at a norm of 5 by itself, here that of all together.
    """
    return RegionClipConfig(), TrainConfig(
        steps=19 * ceil(images / 96),
        batch_size=96,
        rate=2e-3,
        optimizer="sgd",
        weight_decay=1e-4,
        betas=(0.9, 0.999),
        warmup=1000,
        clip_norm=5.0,
        workers=4,
    )


def clipself(images: int) -> tuple[RegionClipConfig, TrainConfig]:
    """Return the noun-label baseline of CLIPSelf's Table 6: its schedule, and 20 regions of a picture."""
    return RegionClipConfig(objective="nouns", max_regions=20), clipself_config.paper(images)[1]


def tiny(images: int) -> tuple[RegionClipConfig, TrainConfig]:
    """Return what suits a model as small as tiny on the world: CLIPSelf's for it, and all boxes of a scene."""
    distilled, training = clipself_config.tiny(images)
    return RegionClipConfig(size=distilled.size, scales=distilled.scales, templates="simple"), training
