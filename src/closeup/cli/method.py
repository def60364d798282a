"""The options that choose how pixels are named: the dense map, MaskCLIP, OVSeg, CAT-Seg or DenseCLIP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from closeup.cli.fields import Flag, Maybe
from closeup.cli.heads import open_dense_predictor, open_segmenter
from closeup.cli.matcher import open_matcher
from closeup.cli.model import ModelOptions
from closeup.cli.window import check_window
from closeup.errors import InputError
from closeup.predict.catseg import CatSegScorer
from closeup.predict.dense_predictor import DensePredictorScorer, check_scales
from closeup.predict.given_masks import GivenMasksScorer
from closeup.predict.mask_sources import ProposerMasks, open_masks
from closeup.predict.maskclip import MaskClipScorer
from closeup.predict.scorers import DenseScorer, Scorer
from closeup.predict.segment_masks import OvSegScorer

Method = Literal["dense", "maskclip", "ovseg", "catseg", "denseclip"]

FUSION = ("weight", "novel_weight", "threshold")

MINE = {
    "dense": ("window", "stride", "matcher"),
    "maskclip": ("denoising", "smoothing", "keys"),
    "ovseg": ("masks", "looks", "gaps", *FUSION),
    "catseg": ("head", "windows"),
    "denseclip": ("head", "window", "stride", "scales", "mirrored"),
}
"""The options that each method has, some of them with another."""


@dataclass(frozen=True)
class MethodOptions:
    """How every pixel gets its word."""

    method: Method = "dense"
    """"dense" compares words with the dense map; "maskclip" also cleans the map up, untrained; "ovseg" names masks that
    a trained proposer outlines; "catseg" is a trained segmenter of any words, "denseclip" one of the words that it
    learned."""

    window: Maybe[int] = None
    """dense, denseclip: side of a sliding window in pixels of the resized photo; the whole photo at once unless
    given."""

    stride: Maybe[int] = None
    """dense, denseclip: pixels from one window to the next; half a window unless given, two thirds for denseclip."""

    matcher: Maybe[Path] = None
    """dense: a trained matcher that compares words with the map in the place of the cosine, on the CLIP that it was
    trained on: its folder, or an official checkpoint of FG-CLIP (.pt, for ViT-B-16/openai)."""

    scales: Maybe[tuple[float, ...]] = None
    """denseclip: sizes at which the photo is looked at, in sizes of the head, as in 0.5 1 1.5; 1 unless given."""

    mirrored: Flag = False
    """denseclip: look at the photo mirrored too."""

    denoising: Maybe[float] = None
    """maskclip: the probability that a word must reach somewhere in the photo, 0.5 unless given; 0 keeps all words."""

    smoothing: Maybe[float] = None
    """maskclip: cells less sure than this are given what cells like them have, 1 unless given; 0 smooths none."""

    keys: Maybe[Literal["cells", "positions"]] = None
    """maskclip: what likeness of cells is measured by: each cell's key, or as in the official code."""

    masks: Maybe[str] = None
    """ovseg: where masks come from: a trained proposer, which says what they are too (tiny-masks unless given), or
    masks of others, which the CLIP alone names: a folder with npz, json or PNGs a photo, a COCO file, hf:NAME, "found"
    (what closeup propose finds), and where there is a truth "truth"."""

    looks: Maybe[Literal["mask-prompt", "masked-crop"]] = None
    """ovseg: how the CLIP sees a mask cut out; with mask prompts where the model has some unless given."""

    weight: Maybe[float] = None
    """ovseg: CLIP's share in a score, from 0, the proposer alone, to 1; 0.7 unless given."""

    novel_weight: Maybe[float] = None
    """ovseg: CLIP's share for words that the proposer did not learn; the same unless given."""

    threshold: Maybe[float] = None
    """ovseg: the probability above which a pixel is part of a mask, 0.4 unless given."""

    gaps: Flag = False
    """ovseg: also look at what no mask covers, which the CLIP alone names: a proposer leaves holes where there is
    something that it did not learn."""

    head: Maybe[str] = None
    """catseg, denseclip: the folder of a trained head; tiny-catseg or tiny-denseclip unless given."""

    windows: Flag = False
    """catseg: look at the photo larger, through windows, besides the whole."""

    def check(self, clip: ModelOptions) -> None:
        """Raise InputError for what can be seen to be wrong without any model."""
        clip.check()
        check_window(self.window, self.stride)
        for name in dict.fromkeys(name for names in MINE.values() for name in names):
            given = getattr(self, name)
            if given is not None and given is not False and name not in MINE[self.method]:
                owners = " or ".join(method for method, names in MINE.items() if name in names)
                raise InputError(f"{_option(name)} is an option of --method {owners}, not {self.method}.")
        if self.scales is not None:
            check_scales(self.scales)
        if self.method in ("ovseg", "catseg", "denseclip") and clip.size is not None:
            raise InputError(f"--size {clip.size}: --method {self.method} looks at photos at the size of its head.")
        if self.method != "dense" and clip.route != ModelOptions().route:
            raise InputError(f"--route {clip.route} is an option of --method dense, not {self.method}.")

    @property
    def closed(self) -> bool:
        """Whether the head knows a closed list of words, which need not be given."""
        return self.method == "denseclip"

    def load(self, clip: ModelOptions) -> Scorer:
        """Load the models and return what names pixels.

        Raises:
            InputError: an option outside its range.
            ModelError: an unknown model or head.
        """
        if self.method == "catseg":
            return CatSegScorer(open_segmenter(self.head or "tiny-catseg", clip), windows=self.windows)
        if self.method == "denseclip":
            predictor = open_dense_predictor(self.head or "tiny-denseclip", clip)
            return DensePredictorScorer(predictor, self.window, self.stride, self.scales or (1.0,), self.mirrored)
        if self.method == "dense":
            looking = clip.load()
            matcher = open_matcher(self.matcher, looking)
            return DenseScorer(looking, clip.route, clip.size, self.window, self.stride, matcher=matcher)
        if self.method == "maskclip":
            given: dict[str, Any] = {name: value or None for name, value in self._given(*MINE["maskclip"]).items()}
            return MaskClipScorer(clip.load(), clip.size, **given)
        return self._by_masks(clip)

    def _by_masks(self, clip: ModelOptions) -> Scorer:
        source = open_masks(self.masks or "tiny-masks", device=clip.device, precision=clip.precision)
        if not isinstance(source, ProposerMasks):
            for name in (*self._given(*FUSION), *(["gaps"] if self.gaps else [])):
                raise InputError(
                    f"{_option(name)} is about a trained proposer and the CLIP together, and the masks of "
                    f"{self.masks} are named by the CLIP alone. Leave it out."
                )
            return GivenMasksScorer(clip.load(), source, self.looks)
        given = {"threshold": source.threshold, **self._given(*FUSION)}
        return OvSegScorer(clip.load(), source.proposer, how=self.looks, gaps=self.gaps, **given)

    def _given(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
