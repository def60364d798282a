"""The part ``denseclip`` of the verb ``adapt``: a CLIP's image tower learns to name every pixel, or to find things."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from closeup.cli.adapt_denseclip_detection import DETECTION_MAKERS, DETECTION_PAPERS, PAPER, Task
from closeup.cli.fields import Flag, Maybe
from closeup.cli.train import DetectorOptions
from closeup.errors import InputError
from closeup.heads.dense_predictor import new_dense_predictor, save_dense_predictor
from closeup.heads.denseclip_config import Prompts
from closeup.recipes.label_maps import label_maps_teach
from closeup.recipes.label_maps_config import LABEL_MAP_PRESETS
from closeup.recipes.run_detection import DetectorTraining, Maker

MAKER = Maker(new_dense_predictor, save_dense_predictor, LABEL_MAP_PRESETS, grounds=True, recipe=label_maps_teach)
"""How a DenseCLIP is made, trained and saved."""

MAKERS: Mapping[Task, Maker] = {"segment": MAKER, **DETECTION_MAKERS}

PAPERS: Mapping[Task, str] = {"segment": "paper-resnet", **DETECTION_PAPERS}
"""The papers' presets."""

OF_WORDS = ("prompts", "contexts", "auxiliary", "scores", "route", "templates")
"""What is of no account without words."""

HEAD = ("prompts", "contexts", "auxiliary", "route", "backbone", "backbone_weights", "scores", "average")


@dataclass(frozen=True)
class DenseClipOptions(DetectorOptions):
    """Teach a CLIP to name every pixel, or to find things, in a closed list of words (DenseCLIP, arXiv 2112.01518).

    It learns from label maps, or masks; with --task detect from boxes, with --task instances from boxes and masks. The
    image tower learns too, and learned contexts around the names of words, through the frozen text tower, make a map of
    scores that guides the rest. What is saved holds the image tower and the embedded words: no text tower is needed to
    use it, and no other CLIP. Of pixels it ends by telling how well it does on pictures that it did not learn from.

        closeup adapt denseclip --images camvid:/data/camvid --preset tiny --model tiny --out my-streets
        closeup adapt denseclip --images ade20k:/data/ade --preset paper-resnet --model RN50/openai --out my-ade
        closeup adapt denseclip --images ade20k:/data/ade --model ViT-B-16/openai --backbone resnet50 --out mine
        closeup segment photos/ --method denseclip --head my-streets
        closeup adapt denseclip --task detect --images coco:/data/coco --model RN50/openai --out my-coco
        closeup detect photos/ --detector my-coco

    The log and the state to resume from lie beside it in a folder of the same name with -run added.
    """

    model: str = "tiny"
    """The CLIP: a name as in "tiny" or "RN50/openai", or a folder of a model."""

    novel: Maybe[Path] = None
    """A file of words that are left out, one a line; all words are learned unless given, whatever the data set holds
    back for other heads."""

    task: Task = "segment"
    """What is learned: "segment", a word for every pixel; "detect", boxes with a RetinaNet; "instances", boxes and
    masks with a Mask R-CNN."""

    preset: str = PAPER
    """The settings not given here: "paper", which for pixels is "paper-resnet" (80,000 steps of 32 pictures of 512 px;
    "paper-vit" has 640 px), for things "paper-retinanet" or "paper-mask-rcnn" (12 epochs of batches of 16, 1067 px); or
    "tiny" (for small models: narrow, 128 px for pixels and 192 px for things)."""

    plain: Flag = False
    """Leave words out: a plain feature pyramid on the image tower, to compare with."""

    prompts: Maybe[Prompts] = None
    """How words know of the picture: "post", moved by a context decoder after the text tower (the paper's best, and
    the default), "pre", by contexts that a decoder makes of it, "instance", by its embedding as a context (both need
    the text tower for each picture, afterwards too), or "learned", not at all."""

    contexts: Maybe[int] = None
    """Learned tokens before each name; 0 for the sentences of --templates; 8 unless given."""

    auxiliary: Maybe[float] = None
    """Weight of the loss on the score map itself; 0.4 for pixels and 1 for things unless given."""

    scores: Maybe[Literal["cosine", "divided"]] = None
    """How scores join the features: as cosines, for pixels unless given, or divided by the temperature, for things."""

    average: Maybe[Literal["valid", "all"]] = None
    """Whether a loss is the mean over labelled pixels, as unless given, or divided by all, as in the official code."""

    route: Maybe[str] = None
    """How the last block is replaced: "attention", not at all, unless given; "value" for a CLIP that CLIPSelf
    adapted."""

    backbone: Maybe[str] = None
    """A backbone of timm's in the place of the CLIP's image tower, such as "resnet50"; words are still the CLIP's."""

    backbone_weights: Maybe[str] = None
    """ImageNet's weights of that backbone: a file under timm's names, or "timm" to fetch them; random unless given."""

    report: Maybe[str] = None
    """Held-out pictures on which it is measured at the end, as for closeup evaluate segmentation; the training data
    set's split val unless given, if it has one; "none" for no report."""

    report_limit: Maybe[int] = None
    """Only the first so many of them; 200 unless given."""

    def head(self) -> dict[str, Any]:
        """Return the head's settings that are given."""
        if self.task != "segment" and self.average is not None:
            raise InputError(f"--average {self.average} is of label maps, and --task {self.task} has none. Drop it.")
        given = {name: getattr(self, name) for name in HEAD if getattr(self, name) is not None}
        for name in OF_WORDS if self.plain else ():
            if getattr(self, name) is not None:
                raise InputError(f"--{name} is about words, and --plain leaves them out. Drop one of them.")
        if self.templates is not None and self.contexts != 0:
            raise InputError(f"--templates {self.templates}: the words around a name are learned. Add --contexts 0.")
        return {**given, "language": False} if self.plain else given

    def maker(self) -> Maker:
        """Return how it is made and saved."""
        return MAKERS[self.task]

    def wanted(self) -> DetectorTraining:
        """Return what is to be trained: all words are learned, whatever the data set holds back for other heads."""
        wanted = super().wanted()
        if self.preset == PAPER:
            wanted = replace(wanted, preset=PAPERS[self.task])
        return wanted if wanted.novel is not None else replace(wanted, novel=())
