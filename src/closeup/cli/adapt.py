"""The verb ``adapt``: one part per recipe, each ending with what was gained and what was forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from closeup.cli.adapt_denseclip import DenseClipOptions
from closeup.cli.adapt_finegrained import FineGrainedOptions, run_adapt_finegrained
from closeup.cli.adapt_options import NO_REPORT, AdaptOptions, MapOptions
from closeup.cli.denseclip_report import run_denseclip
from closeup.cli.evaluate_forgetting import MeasureOptions, report_lines
from closeup.cli.fields import Flag, Maybe
from closeup.cli.files import check_folder, counted
from closeup.cli.output import show, show_json
from closeup.predict.forgetting_report import ForgettingReport
from closeup.recipes.region_config import Regions
from closeup.recipes.regionclip_config import Objective, TeacherView
from closeup.recipes.run_adapt import Adapted, adapt
from closeup.recipes.runs import is_started, read_card, run_folder, write_card


@dataclass(frozen=True)
class ClipSelf(MapOptions):
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

    recipe: ClassVar[str] = "clipself"

    preset: str = "paper"
    """The settings not given here: "paper" (batch 16, 6 epochs, gradients exchanged), "released" (what the official
    scripts really did: batch 2, an eighth of the pictures) or "tiny" (for small models: Muon, a high rate, one visit
    to each picture)."""

    regions: Regions = "patches"
    """What is cut out: cells of random grids, boxes, or, beyond the paper, masks, or at each visit to a picture either
    cells or boxes: the first teach grounds, the second things."""

    keep_global: float = 0.0
    """Weight of a term that holds whole-image embeddings where they were, against forgetting; 0 in the paper."""

    keep_crops: Maybe[int] = None
    """How many cut-outs of a picture that term holds besides the whole picture; 1 unless given."""

    image_only: Flag = False
    """Distil whole pictures and no regions: an ablation."""

    def config(self) -> dict[str, Any]:
        """Return the recipe's settings that are given."""
        crops = {} if self.keep_crops is None else {"keep_crops": self.keep_crops}
        own = {"regions": self.regions, "keep_global": self.keep_global, "image_only": self.image_only}
        return super().config() | own | crops


@dataclass(frozen=True, kw_only=True)
class RegionClip(MapOptions):
    """Teach a CLIP's regions the words that captions use (RegionCLIP, arXiv 2112.09106).

    A frozen copy of the model says which concept each region shows, where it is sure; the model learns to tell these
    regions apart by their concepts, and pictures by their captions where they have some. Concepts come from captions,
    by closeup concepts, or from any list of words.

        closeup concepts captions.json --out concepts.txt
        closeup adapt regionclip --images photos/ --concepts concepts.txt --model ViT-B-16/openai --out my-clip
        closeup adapt regionclip --images coco-captions:/data/coco --concepts concepts.txt --model RN50/openai --out r
        closeup adapt regionclip --images photos/ --concepts concepts.txt --preset clipself --out my-nouns

    The model is a folder that open_clip loads as local-dir:FOLDER; the log and the state to resume from lie beside
    it in a folder of the same name with -run added.
    """

    recipe: ClassVar[str] = "regionclip"

    concepts: str
    """The file of concepts, one a line, as closeup concepts writes it."""

    preset: str = "paper"
    """The settings not given here: "paper" (batch 96, 19 epochs, SGD), "clipself" (the noun labels that CLIPSelf
    compares with, and its schedule) or "tiny" (for small models: Muon, a high rate, one visit to each picture)."""

    regions: Regions = "proposals"
    """What regions are: boxes, cells of random grids, masks, at each visit either cells or boxes, or random boxes."""

    teacher: TeacherView = "auto"
    """How the teacher sees a region: "map", read off the picture as by the student, or "crops", cut out; "auto" is map
    for CLIP's ResNets and crops for other towers, whose map knows little before it is adapted."""

    teacher_model: str = ""
    """Another model as the teacher; the model as it was unless given."""

    templates: Maybe[str] = None
    """The sentences around a concept, a set such as "simple" or "openai-80"."""

    objective: Maybe[Objective] = None
    """What is learned from labels: "concepts", RegionCLIP's losses, or "nouns", yes-or-no questions."""

    threshold: Maybe[float] = None
    """How sure the teacher must be of a region, 0.1 unless given."""

    contrast: Maybe[float] = None
    """Weight of telling regions apart by their concepts, 1 unless given."""

    distill: Maybe[float] = None
    """Weight of the teacher's probabilities of all concepts, 1 unless given."""

    image_text: Maybe[float] = None
    """Weight of telling pictures apart by their captions, 1 unless given."""

    negatives: Literal["gathered", "local"] = "gathered"
    """Whether regions are told from those of all devices, or of their own alone as in the official code."""

    def config(self) -> dict[str, Any]:
        """Return the recipe's settings that are given."""
        names = ("templates", "objective", "threshold", "contrast", "distill", "image_text")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        own = {name: getattr(self, name) for name in ("concepts", "regions", "teacher", "teacher_model", "negatives")}
        return super().config() | own | given


@dataclass(frozen=True)
class MaskAdapt(AdaptOptions):
    """Teach a CLIP to read crops of which all but a mask is blank (OVSeg, arXiv 2210.04150).

    The image tower learns from masks and their nouns, or mask prompts do, learned tokens in the place of what is blank,
    and leave the CLIP as it is; the paper's best is the one after the other. Masks with nouns are mined from captions
    by closeup pairs, or are a data set's own.

        closeup pairs --images coco-captions:/data/coco --masks my-masks --out pairs/
        closeup adapt maskadapt --images pairs:pairs/ --model ViT-B-16/openai --out my-clip
        closeup adapt maskadapt --images pairs:pairs/ --start my-clip --preset paper-prompts --model ... --out mine
        closeup segment photo.jpg --method ovseg --model mine --masks my-masks --words words.txt

    The model is a folder that open_clip loads as local-dir:FOLDER, mask prompts beside its weights; the log and the
    state to resume from lie beside it in a folder of the same name with -run added.
    """

    recipe: ClassVar[str] = "maskadapt"

    preset: str = "paper"
    """The settings not given here: "paper" (the image tower: batch 256, 5 epochs) or "paper-prompts" (mask prompts
    alone), and for small models "tiny" or "tiny-prompts"."""

    tune: Maybe[Literal["tower", "prompts", "both"]] = None
    """What learns: the image tower, mask prompts, or both at once; the preset's unless given."""

    depth: Maybe[int] = None
    """Places where prompts enter, the first before the first block; 3 in the paper."""

    masks_per_picture: Maybe[int] = None
    """Masks of a picture in one step; 1 in the paper, whose pictures are the masks."""

    templates: Maybe[str] = None
    """The sentences around a noun, a set such as "simple" or "vild-14"."""

    equal_nouns: Literal["apart", "negatives"] = "apart"
    """Whether crops of one noun in a batch are left out of each other's loss, or are negatives as in the official
    code."""

    def config(self) -> dict[str, Any]:
        """Return the recipe's settings that are given."""
        given = {name: getattr(self, name) for name in ("tune", "depth", "masks_per_picture", "templates")}
        return {name: value for name, value in given.items() if value is not None} | {"equal_nouns": self.equal_nouns}

    def measuring(self) -> MeasureOptions:
        """Return how gained and forgotten are measured: on masked crops."""
        return replace(super().measuring(), how=("masked-crop", "crop"))


Options = {
    "clipself": ClipSelf,
    "regionclip": RegionClip,
    "maskadapt": MaskAdapt,
    "denseclip": DenseClipOptions,
    "finegrained": FineGrainedOptions,
}


def run(options: AdaptOptions | DenseClipOptions | FineGrainedOptions) -> int:
    """Adapt, save, and tell what was gained and what was forgotten; of other things, how well they do."""
    if isinstance(options, FineGrainedOptions):
        return run_adapt_finegrained(options)
    if isinstance(options, DenseClipOptions):
        return run_denseclip(options)
    check_folder(options.out.parent)
    measuring = options.measuring()
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


def _adapt(options: AdaptOptions) -> Adapted:
    resume = options.resume or (options.resume_if_started and is_started(options.out))
    return adapt(options.adaptation(), options.out, resume=resume, watch=_counting)


def _counting(done: Iterator[int], total: int) -> Iterator[int]:
    with counted("asking the teacher") as tell:
        for number, index in enumerate(done, start=1):
            tell(number, total)
            yield index


def _keep(report: ForgettingReport, options: AdaptOptions, done: Adapted) -> None:
    """Write the report beside the log, and its short form into the model's card."""
    report.save(run_folder(done.folder) / "forgetting.json")
    card = read_card(done.folder)
    write_card(
        done.folder, {**card, "measured": {"data": options.report, "limit": options.report_limit, **report.summary()}}
    )
