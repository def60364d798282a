"""The verb ``adapt``: one part per recipe, each ending with what was gained and what was forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from closeup.cli.evaluate_forgetting import MeasureOptions, report_lines
from closeup.cli.fields import Flag, Maybe
from closeup.cli.files import check_folder, counted
from closeup.cli.output import show, show_json
from closeup.models.windows import Window
from closeup.predict.forgetting import CLOSE_UPS
from closeup.predict.forgetting_report import ForgettingReport
from closeup.recipes.region_config import Regions
from closeup.recipes.run_adapt import Adaptation, Adapted, adapt
from closeup.recipes.runs import is_started, read_card, run_folder, write_card

NO_REPORT = "none"


@dataclass(frozen=True)
class ClipSelf:
    """Teach a CLIP's dense map what it knows about cut-out regions (CLIPSelf, arXiv 2310.01403). Needs no labels.

    A frozen copy of the model looks at parts of a picture cut out, and the model learns to see the same in the map
    of the whole picture. Any folder of photos will do. It ends by telling what was gained on regions and what was
    forgotten about whole images.

        closeup adapt clipself --images photos/ --model tiny --out my-clip
        closeup adapt clipself --images photos/ --model ViT-B-16/openai --size 672 --blocks 6 --alpha 0.7 --out my-clip
        closeup adapt clipself --images photos/ --regions proposals --keep-global 1 --cache cache/ --out my-clip
        closeup adapt clipself --images "coco:boxes.json?images=photos&masks=no" --regions proposals --out my-clip
        accelerate launch -m closeup adapt clipself --images photos/ --model tiny --out my-clip --resume

    The model is a folder that open_clip loads as local-dir:FOLDER; the log and the state to resume from lie beside
    it in a folder of the same name with -run added.
    """

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
    """The settings not given here: "paper" (batch 16, 6 epochs, gradients exchanged), "released" (what the official
    scripts really did: batch 2, an eighth of the pictures) or "tiny" (for small models: Muon, a high rate, one visit
    to each picture)."""

    regions: Regions = "patches"
    """What is cut out: cells of random grids, boxes, or, beyond the paper, masks, or at each visit to a picture either
    cells or boxes: the first teach grounds, the second things."""

    regions_from: Literal["auto", "data", "found"] = "auto"
    """Whose boxes or masks: the data set's, or those found in the pictures themselves, as by closeup propose; "auto" is
    the data set's where it has them, else found."""

    splits: Maybe[int] = None
    """The most rows or columns of a grid of patches, 6 in the paper."""

    size: Maybe[int] = None
    """Longest side in pixels at which the student sees pictures; 64 patches unless given."""

    scales: Maybe[tuple[int, ...]] = None
    """Sizes of which each step draws one for the student."""

    blocks: Maybe[int] = None
    """How many of the last blocks learn; all unless given."""

    route: str = "value"
    """How the student's last block is replaced to keep features local."""

    window: Maybe[Window] = None
    """Cells along a side of windows that the student's attention stays inside, or "native" for the grid that the model
    was trained on; attention over the whole map unless given."""

    keep_global: float = 0.0
    """Weight of a term that holds whole-image embeddings where they were, against forgetting; 0 in the paper."""

    keep_crops: Maybe[int] = None
    """How many cut-outs of a picture that term holds besides the whole picture; 1 unless given."""

    image_only: Flag = False
    """Distil whole pictures and no regions: an ablation."""

    alpha: float = 1.0
    """The share of the adapted model in what is saved, the rest is the model as it was; the paper's is 0.7 for ViT-B/16
    and 0.95 for ViT-L/14."""

    cache: Maybe[Path] = None
    """A folder that keeps the teacher's embeddings from visit to visit, and from run to run."""

    precompute: Flag = False
    """Fill the cache before training, with all that may be drawn."""

    steps: Maybe[int] = None
    """Optimiser steps; 6 epochs unless given."""

    batch_size: Maybe[int] = None
    """Pictures in a step, over all processes."""

    accumulate: Maybe[int] = None
    """Parts that a batch is computed in, to save memory."""

    rate: Maybe[float] = None
    """The highest learning rate; 1e-5 in the paper, small models bear more."""

    optimizer: Maybe[Literal["adamw", "muon"]] = None
    """AdamW, as in the paper, or Muon, by which small models learn from fewer pictures."""

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
        told: dict[str, Any] = {"max_split": self.splits, "size": self.size, "blocks": self.blocks}
        told |= {"scales": self.scales, "keep_crops": self.keep_crops}
        return {name: value for name, value in told.items() if value is not None} | {
            "regions": self.regions,
            "regions_from": self.regions_from,
            "route": self.route,
            "window": self.window,
            "keep_global": self.keep_global,
            "image_only": self.image_only,
        }

    def training(self) -> dict[str, Any]:
        """Return the loop's settings that are given."""
        names = ("steps", "batch_size", "accumulate", "rate", "optimizer", "warmup", "precision", "workers", "seed")
        told = {name: getattr(self, name) for name in (*names, "save_every")} | {"trackers": self.tracker}
        return {name: value for name, value in told.items() if value is not None}


Options = {"clipself": ClipSelf}


def run(options: ClipSelf) -> int:
    """Adapt, save, and tell what was gained and what was forgotten."""
    check_folder(options.out.parent)
    measuring = MeasureOptions(
        data=options.report,
        limit=options.report_limit,
        close_ups=options.report_close_ups,
        route=options.route,
        window=options.window,
        size=options.size,
        precision="fp32" if options.precision == "fp32" else "auto",
    )
    reader = None if options.report == NO_REPORT else measuring.reader()
    done = _adapt(options)
    if not done.main:
        return 0
    report = None
    if reader is not None:
        before, after = measuring.load(options.model), measuring.load(str(done.folder))
        report = measuring.compare(before, after, reader)
        _keep(report, options, done)
    if options.json:
        told = None if report is None else {"data": options.report, **report.to_dict()}
        show_json({"model": done.folder, "figures": done.figures, "forgetting": told})
        return 0
    show(
        f"Written: {done.folder}; the log and the state are in {run_folder(done.folder)}.",
        *([] if report is None else report_lines(report, options.report)),
    )
    return 0


def _adapt(options: ClipSelf) -> Adapted:
    wanted = Adaptation(
        recipe="clipself",
        images=options.images,
        model=options.model,
        start=options.start,
        split=options.split,
        preset=options.preset,
        config=options.config(),
        training=options.training(),
        alpha=options.alpha,
        cache=options.cache,
        precompute=options.precompute,
        dtype=options.dtype,
        form=options.form,
    )
    resume = options.resume or (options.resume_if_started and is_started(options.out))
    return adapt(wanted, options.out, resume=resume, watch=_counting)


def _counting(done: Iterator[int], total: int) -> Iterator[int]:
    with counted("asking the teacher") as tell:
        for number, index in enumerate(done, start=1):
            tell(number, total)
            yield index


def _keep(report: ForgettingReport, options: ClipSelf, done: Adapted) -> None:
    """Write the report beside the log, and its short form into the model's card."""
    report.save(run_folder(done.folder) / "forgetting.json")
    card = read_card(done.folder)
    write_card(
        done.folder, {**card, "measured": {"data": options.report, "limit": options.report_limit, **report.summary()}}
    )
