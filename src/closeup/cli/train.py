"""The verb ``train``: one part per head, trained on boxes with words, on a CLIP."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from closeup.cli.fields import Flag, Maybe
from closeup.cli.files import check_folder
from closeup.cli.output import show, show_json
from closeup.heads.mask_proposer import new_mask_proposer
from closeup.heads.rpn import new_proposer
from closeup.heads.saved import new_c4, new_detector, save_detector
from closeup.heads.segmenter import new_segmenter
from closeup.heads.trained import save_head
from closeup.recipes.detection_config import C4_PRESETS, RPN_PRESETS
from closeup.recipes.run_adapt import Adapted
from closeup.recipes.run_detection import DetectorTraining, Maker, train_detector
from closeup.recipes.runs import is_started, run_folder
from closeup.recipes.segmentation_config import CATSEG_PRESETS, MASKS_PRESETS
from closeup.text import Vocabulary

TRAINING = ("steps", "batch_size", "rate", "warmup", "precision", "workers", "seed", "save_every")


@dataclass(frozen=True)
class TrainOptions(ABC):
    """What all heads are told alike."""

    images: str
    """A data set with labelled boxes, for masks and catseg with masks or label maps, such as "coco:/data/coco" or
    "world?count=5000"."""

    out: Path
    """The folder of the finished head."""

    model: str = "tiny-clipself"
    """The CLIP below it: a name as in "tiny-clipself" or "ViT-B-16/openai", or a folder of a model."""

    split: Maybe[str] = None
    """The split of a data set: train unless its line says otherwise."""

    novel: Maybe[Path] = None
    """A file of words that are left out, boxes and masks alike, one a line; the world, LVIS, and the files of closeup
    protocol ov-coco have novel words of their own."""

    preset: str = "paper"
    """The settings not given here: "paper" (OV-COCO: batch 64, 3 epochs, pictures of 640 px) or "tiny" (for small
    models: a narrow head, one visit to each picture, 256 px)."""

    size: Maybe[int] = None
    """Side of the canvas in pixels."""

    steps: Maybe[int] = None
    """Optimiser steps; the preset's number of epochs unless given."""

    batch_size: Maybe[int] = None
    """Pictures in a step, over all processes."""

    rate: Maybe[float] = None
    """The highest learning rate."""

    warmup: Maybe[int] = None
    """Steps in which the rate rises."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of training: "auto" is bf16 where the machine is faster at it."""

    workers: Maybe[int] = None
    """Processes that read pictures ahead."""

    seed: Maybe[int] = None
    """Seed of the head's first weights and of the order of pictures."""

    save_every: Maybe[int] = None
    """Steps from one saved state to the next."""

    dtype: Literal["fp32", "fp16"] = "fp32"
    """Numbers of the saved weights; fp16 halves the file."""

    resume: Flag = False
    """Go on from the last saved state; an error where there is none."""

    resume_if_started: Flag = False
    """Go on where a state was saved, else begin."""

    json: Flag = False
    """Print one json document at the end."""

    def config(self) -> dict[str, Any]:
        """Return what is given of how pictures are seen."""
        return {} if self.size is None else {"size": self.size}

    def head(self) -> dict[str, Any]:
        """Return what is given of the head itself."""
        return {}

    @abstractmethod
    def maker(self) -> Maker:
        """Return how the head is made and saved."""

    def wanted(self) -> DetectorTraining:
        """Return what is to be trained."""
        novel = None if self.novel is None else Vocabulary.from_file(self.novel).names
        training = {name: getattr(self, name) for name in TRAINING}
        return DetectorTraining(
            images=self.images,
            model=self.model,
            split=self.split,
            preset=self.preset,
            novel=novel,
            config=self.config(),
            training={name: value for name, value in training.items() if value is not None},
            head=self.head(),
            dtype=self.dtype,
        )


@dataclass(frozen=True)
class DetectorOptions(TrainOptions):
    """What detectors are told alike."""

    templates: Maybe[str] = None
    """The sentences around a word, a set such as "simple"."""

    def config(self) -> dict[str, Any]:
        """Return what is given of how pictures are seen, and the words."""
        return super().config() | ({} if self.templates is None else {"templates": self.templates})


@dataclass(frozen=True)
class FVitOptions(DetectorOptions):
    """Train a detector of any words on a frozen CLIP (F-ViT of CLIPSelf, arXiv 2310.01403).

    It learns to find boxes and to name them from the base words of a data set, and finds novel words too: there the
    frozen CLIP says more. How well it names them is CLIP's own skill at regions, so adapt the model first.

        closeup train fvit --images world?count=5000 --model tiny-clipself --preset tiny --out my-detector
        closeup train fvit --images coco:/data/coco --model my-clip --novel novel-17.txt --out my-detector
        closeup detect photos/ --detector my-detector --words "cat, dog, traffic light" --out found/

    The log and the state to resume from lie beside the detector in a folder of the same name with -run added.
    """

    preset: str = "paper"
    """The settings not given here: "paper" (OV-COCO: batch 64, 3 epochs, pictures of 640 px), "paper-lvis" (OV-LVIS: 48
    epochs, 1024 px, outlines too) or "tiny" (for small models: a narrow head, one visit to each picture, 256 px)."""

    masks: Flag = False
    """Learn to outline objects too, from the masks of the data set."""

    def head(self) -> dict[str, Any]:
        """Return whether there is a head of masks."""
        return {"masks": True} if self.masks else {}

    def maker(self) -> Maker:
        """Return how an F-ViT is made and saved."""
        return Maker(new_detector, save_detector)


@dataclass(frozen=True)
class C4Options(DetectorOptions):
    """Train a detector of any words in which the CLIP learns (RegionCLIP, arXiv 2112.09106).

    A trained proposer gives the boxes, and a copy of the CLIP's image tower learns to name them; what it learns is kept
    with the detector. Novel words are found by what it knows of them already, so adapt the model first.

        closeup train rpn --images world?count=5000 --model tiny-clipself --preset tiny --out my-rpn
        closeup train c4 --proposer my-rpn --images world?count=5000 --model tiny-clipself --preset tiny --out my-c4
        closeup detect photos/ --detector my-c4 --words "star, key" --out found/

    The log and the state to resume from lie beside the detector in a folder of the same name with -run added.
    """

    proposer: Path = field(kw_only=True)
    """The folder of a trained proposer, as closeup train rpn makes one. The detector names it, so leave it there."""

    loss: Maybe[Literal["focal", "weighted"]] = None
    """The class loss: as RegionCLIP has it for COCO, or for LVIS; the preset's unless given."""

    objectness: Maybe[Literal["none", "sigmoid", "logit"]] = None
    """How the proposer's logit will take part in a score: not at all (RegionCLIP on COCO), as a probability, or raw (on
    LVIS); the preset's unless given."""

    preset: str = "paper"
    """The settings not given here: "paper" (OV-COCO: 90,000 steps of 16 pictures of 1067 px), "paper-lvis" (OV-LVIS:
    twice as many) or "tiny" (for small models: one visit to each picture, 256 px)."""

    def head(self) -> dict[str, Any]:
        """Return the class loss, and what becomes of objectness."""
        given = {"loss": self.loss, "objectness": self.objectness}
        return {name: value for name, value in given.items() if value is not None}

    def maker(self) -> Maker:
        """Return how it is made on its proposer, and saved."""
        return Maker(partial(new_c4, proposer=self.proposer), save_detector, C4_PRESETS, self.proposer)


@dataclass(frozen=True)
class RpnOptions(TrainOptions):
    """Train a proposer: boxes of whatever may be an object, and how likely each is one.

    It learns from the boxes of the base words of a data set, not from their names, on a frozen CLIP. With it a CLIP
    alone detects: it names the boxes, and the score of a name is weighed by the box's.

        closeup train rpn --images world?count=5000 --model tiny-clipself --preset tiny --out my-rpn
        closeup detect photos/ --proposer my-rpn --model tiny-clipself --words "star, key" --out found/

    The log and the state to resume from lie beside the proposer in a folder of the same name with -run added.
    """

    def maker(self) -> Maker:
        """Return how a proposer is made and saved."""
        return Maker(new_proposer, save_head, RPN_PRESETS)


@dataclass(frozen=True)
class MasksOptions(DetectorOptions):
    """Train a proposer of masks, each with a word of things and grounds (MaskFormer as in OVSeg, arXiv 2210.04150).

    It learns from the masks of the base words of a data set on a frozen CLIP, and outlines other things too. What they
    are, a CLIP says that sees each mask cut out; see closeup segment --method ovseg.

        closeup train masks --images world?count=5000 --model tiny-clipself --preset tiny --out my-masks
        closeup train masks --images coco-panoptic:/data/coco --model my-clip --out my-masks

    The log and the state to resume from lie beside the proposer in a folder of the same name with -run added.
    """

    regions: Maybe[Literal["words", "things"]] = None
    """What one true mask is: all that a word names in a picture, as in the paper, or each thing by itself; the preset's
    unless given."""

    preset: str = "paper"
    """The settings not given here: "paper" (OVSeg's: 120,000 steps of 32 pictures of 512 px) or "tiny" (for small
    models: few queries, one visit to each picture, 256 px)."""

    def maker(self) -> Maker:
        """Return how a proposer of masks is made and saved."""
        return Maker(new_mask_proposer, save_head, MASKS_PRESETS, grounds=True)

    def head(self) -> dict[str, Any]:
        """Return the head's settings that are given."""
        return {} if self.regions is None else {"regions": self.regions}


@dataclass(frozen=True)
class CatSegOptions(DetectorOptions):
    """Train a segmenter of any words on a CLIP (CAT-Seg, arXiv 2303.11797).

    It learns from the label maps, or masks, of the base words of a data set, and the CLIP's queries and values learn a
    little too; afterwards it names every pixel of photos in any words: see closeup segment --method catseg.

        closeup train catseg --images world?count=3000 --model tiny-clipself --preset tiny --route value --out my-catseg
        closeup train catseg --images coco-panoptic:/data/coco --model ViT-B-16/openai --out my-catseg

    The log and the state to resume from lie beside the segmenter in a folder of the same name with -run added.
    """

    preset: str = "paper"
    """The settings not given here: "paper" (80,000 steps of 4 pictures of 384 px) or "tiny" (for small models: narrow,
    one visit to each picture, 128 px, a frozen CLIP)."""

    route: str = "value-cls-residual"
    """How the last block is replaced: CAT-Seg's own way, or "value" for a CLIP that CLIPSelf adapted."""

    tune: Maybe[Literal["both", "image", "nothing"]] = None
    """Whose queries and values learn; the preset's unless given: both towers' in the paper."""

    def maker(self) -> Maker:
        """Return how a segmenter is made and saved."""
        return Maker(new_segmenter, save_head, CATSEG_PRESETS, grounds=True)

    def head(self) -> dict[str, Any]:
        """Return the head's settings that are given."""
        return {"route": self.route} | ({} if self.tune is None else {"tune": self.tune})


Options = {"fvit": FVitOptions, "c4": C4Options, "rpn": RpnOptions, "masks": MasksOptions, "catseg": CatSegOptions}


def run(options: TrainOptions) -> int:
    """Train and save."""
    done = trained(options)
    if not done.main:
        return 0
    if options.json:
        show_json({"head": done.folder, "figures": done.figures})
        return 0
    show(written(done))
    return 0


def trained(options: TrainOptions) -> Adapted:
    """Train, and return where the head lies."""
    check_folder(options.out.parent)
    resume = options.resume or (options.resume_if_started and is_started(options.out))
    return train_detector(options.wanted(), options.out, options.maker(), resume=resume)


def written(done: Adapted) -> str:
    """Return the line that tells where everything lies."""
    return f"Written: {done.folder}; the log and the state are in {run_folder(done.folder)}."
