"""What all recipes of the verb ``adapt`` are told alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from closeup.cli.evaluate_forgetting import MeasureOptions
from closeup.cli.fields import Flag, Maybe
from closeup.models.windows import Window
from closeup.predict.forgetting import CLOSE_UPS
from closeup.recipes.region_config import RegionsFrom
from closeup.recipes.run_adapt import Adaptation

NO_REPORT = "none"
"""In the place of a data set: nothing is measured at the end."""

TRAINING = (
    "steps",
    "batch_size",
    "accumulate",
    "rate",
    "optimizer",
    "warmup",
    "precision",
    "workers",
    "seed",
    "save_every",
)


@dataclass(frozen=True)
class AdaptOptions:
    """Pictures and model; how long and how fast; what is saved and measured."""

    recipe: ClassVar[str]

    images: str
    """The pictures: a folder, or any data set such as "coco:/data/coco" or "world?count=5000"."""

    out: Path
    """The folder of the finished model."""

    model: str = "tiny"
    """The model to adapt: a name as in "tiny" or "ViT-B-16/openai", or a folder of a model."""

    start: Maybe[str] = None
    """A model adapted from it to go on from; the teacher is still the model as it was."""

    split: Maybe[str] = None
    """The split of a data set: train unless its line says otherwise."""

    preset: str = "paper"
    """The settings not given here."""

    alpha: float = 1.0
    """The share of the adapted model in what is saved, the rest is the model as it was; the paper's is 0.7 for ViT-B/16
    and 0.95 for ViT-L/14."""

    steps: Maybe[int] = None
    """Optimiser steps; the preset's number of epochs unless given."""

    batch_size: Maybe[int] = None
    """Pictures in a step, over all processes."""

    accumulate: Maybe[int] = None
    """Parts that a batch is computed in, to save memory."""

    rate: Maybe[float] = None
    """The highest learning rate; the preset's unless given. Small models bear more."""

    optimizer: Maybe[Literal["adamw", "muon", "sgd"]] = None
    """AdamW, Muon, by which small models learn from fewer pictures, or SGD with momentum."""

    warmup: Maybe[int] = None
    """Steps in which the rate rises; the preset's, but at most a tenth of all, unless given."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of training: "auto" is bf16 where the machine is faster at it."""

    workers: Maybe[int] = None
    """Processes that read pictures ahead."""

    seed: Maybe[int] = None
    """Seed of the order of pictures and of the regions drawn."""

    save_every: Maybe[int] = None
    """Steps from one saved state to the next."""

    tracker: Maybe[tuple[str, ...]] = None
    """Where the figures of the log go besides: "tensorboard", or other trackers that Accelerate knows."""

    dtype: Literal["fp32", "fp16"] = "fp32"
    """Numbers of the saved weights; fp16 halves the file."""

    form: Literal["whole", "changes"] = "whole"
    """What is saved: the whole model, which open_clip loads without Closeup, or only what changed, for Closeup to load
    over the base: for a large model of which a few blocks learned, a small file."""

    resume: Flag = False
    """Go on from the last saved state; an error where there is none. A finished training is saved again, so that
    another alpha needs no other training."""

    resume_if_started: Flag = False
    """Go on where a state was saved, else begin."""

    report: str = "world"
    """The data on which gained and forgotten are measured, as for closeup evaluate forgetting; "none" for no report."""

    report_limit: int = 100
    """Only the first so many records of it."""

    report_close_ups: int = CLOSE_UPS
    """Close-ups that whole-image tasks ask about, where it is the world."""

    json: Flag = False
    """Print one json document at the end."""

    def config(self) -> dict[str, Any]:
        """Return the recipe's settings that are given."""
        return {}

    def training(self) -> dict[str, Any]:
        """Return the loop's settings that are given."""
        told = {name: getattr(self, name) for name in TRAINING} | {"trackers": self.tracker}
        return {name: value for name, value in told.items() if value is not None}

    def adaptation(self) -> Adaptation:
        """Return what is to be done."""
        return Adaptation(
            recipe=self.recipe,
            images=self.images,
            model=self.model,
            start=self.start,
            split=self.split,
            preset=self.preset,
            config=self.config(),
            training=self.training(),
            alpha=self.alpha,
            dtype=self.dtype,
            form=self.form,
        )

    def measuring(self) -> MeasureOptions:
        """Return how gained and forgotten are measured."""
        return MeasureOptions(
            data=self.report,
            limit=self.report_limit,
            close_ups=self.report_close_ups,
            precision="fp32" if self.precision == "fp32" else "auto",
        )


@dataclass(frozen=True)
class MapOptions(AdaptOptions):
    """What recipes that teach the dense map are told besides: regions, the student's size, the teacher's cache."""

    regions_from: RegionsFrom = "auto"
    """Whose boxes or masks: the data set's, or those found in the pictures themselves, as by closeup propose; "auto" is
    the data set's where it has them, else found."""

    splits: Maybe[int] = None
    """The most rows or columns of a grid of patches, 6 in the paper."""

    max_regions: Maybe[int] = None
    """Regions of one picture in one step: 20 for CLIPSelf, 100 for RegionCLIP unless given."""

    size: Maybe[int] = None
    """Longest side in pixels at which the student sees pictures; 64 patches unless given, for
    RegionCLIP on CLIP's ResNets 1333."""

    scales: Maybe[tuple[int, ...]] = None
    """Sizes of which each step draws one for the student."""

    blocks: Maybe[int] = None
    """How many of the last blocks learn; all unless given."""

    route: str = "value"
    """How the student's last block is replaced to keep features local."""

    window: Maybe[Window] = None
    """Cells along a side of windows that the student's attention stays inside, or "native" for the grid that the model
    was trained on; attention over the whole map unless given."""

    cache: Maybe[Path] = None
    """A folder that keeps the teacher's embeddings from visit to visit, and from run to run."""

    precompute: Flag = False
    """Fill the cache before training, with all that may be drawn."""

    def config(self) -> dict[str, Any]:
        """Return the recipe's settings that are given."""
        told: dict[str, Any] = {"max_split": self.splits, "size": self.size, "blocks": self.blocks}
        # Sizes to draw from are a preset's, and would undo a size that is given.
        scales = () if self.size is not None and self.scales is None else self.scales
        told |= {"scales": scales, "max_regions": self.max_regions}
        return {name: value for name, value in told.items() if value is not None} | {
            "regions_from": self.regions_from,
            "route": self.route,
            "window": self.window,
        }

    def adaptation(self) -> Adaptation:
        """Return what is to be done."""
        return replace(super().adaptation(), cache=self.cache, precompute=self.precompute)

    def measuring(self) -> MeasureOptions:
        """Return how gained and forgotten are measured: on the map as the student has it."""
        return replace(super().measuring(), route=self.route, window=self.window, size=self.size)
