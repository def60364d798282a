"""Closeup: CLIP, up close. Boxes, masks, pixels and attributes in words, on any open_clip tower."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from closeup.data import Record as Record
    from closeup.data import open_reader as open_reader
    from closeup.data.world import World as World
    from closeup.errors import CloseupError as CloseupError
    from closeup.heads.dense_predictor import load_dense_predictor as load_dense_predictor
    from closeup.heads.mask_proposer import load_mask_proposer as load_mask_proposer
    from closeup.heads.segmenter import load_segmenter as load_segmenter
    from closeup.match import load_matcher as load_matcher
    from closeup.match import probabilities as probabilities
    from closeup.match import score as score
    from closeup.models import Clip as Clip
    from closeup.models import blend as blend
    from closeup.models import load as load
    from closeup.predict import CatSegScorer as CatSegScorer
    from closeup.predict import DensePredictorScorer as DensePredictorScorer
    from closeup.predict import GivenMasksScorer as GivenMasksScorer
    from closeup.predict import MaskClipScorer as MaskClipScorer
    from closeup.predict import OvSegScorer as OvSegScorer
    from closeup.predict import classify as classify
    from closeup.predict import evaluate_forgetting as evaluate_forgetting
    from closeup.predict import evaluate_regions as evaluate_regions
    from closeup.predict import evaluate_segmentation as evaluate_segmentation
    from closeup.predict import heatmap as heatmap
    from closeup.predict import panoptic as panoptic
    from closeup.predict import segment as segment
    from closeup.predict import segment_by as segment_by
    from closeup.regions import CropPolicy as CropPolicy
    from closeup.regions.propose import propose as propose
    from closeup.text import TextBank as TextBank
    from closeup.text import Vocabulary as Vocabulary
    from closeup.text import build_bank as build_bank

__version__ = "0.1.0"

_HOMES = {
    "CatSegScorer": "closeup.predict",
    "Clip": "closeup.models",
    "CloseupError": "closeup.errors",
    "CropPolicy": "closeup.regions",
    "DensePredictorScorer": "closeup.predict",
    "GivenMasksScorer": "closeup.predict",
    "MaskClipScorer": "closeup.predict",
    "OvSegScorer": "closeup.predict",
    "Record": "closeup.data",
    "TextBank": "closeup.text",
    "Vocabulary": "closeup.text",
    "World": "closeup.data.world",
    "blend": "closeup.models",
    "build_bank": "closeup.text",
    "classify": "closeup.predict",
    "evaluate_forgetting": "closeup.predict",
    "evaluate_regions": "closeup.predict",
    "evaluate_segmentation": "closeup.predict",
    "heatmap": "closeup.predict",
    "load": "closeup.models",
    "load_dense_predictor": "closeup.heads.dense_predictor",
    "load_mask_proposer": "closeup.heads.mask_proposer",
    "load_matcher": "closeup.match",
    "load_segmenter": "closeup.heads.segmenter",
    "open_reader": "closeup.data",
    "panoptic": "closeup.predict",
    "probabilities": "closeup.match",
    "propose": "closeup.regions.propose",
    "score": "closeup.match",
    "segment": "closeup.predict",
    "segment_by": "closeup.predict",
}
# Names are fetched when first used: torch takes seconds to import, and a command's --help needs none of it.

__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'closeup' has no attribute {name!r}; it has {', '.join(sorted(_HOMES))}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
