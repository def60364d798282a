"""Pictures beside the tables of segmentation: the truth, and what each way calls every pixel."""

from __future__ import annotations

from collections.abc import Mapping

import PIL.Image

from closeup.data.world import World
from closeup.heads.mask_proposer import load_mask_proposer
from closeup.models.clip import Clip
from closeup.predict.scorers import Scorer
from closeup.predict.segment import segment_by
from closeup.predict.segment_masks import OvSegScorer
from closeup.viz import draw_segmentation, draw_sheet

SCENES = (3, 7, 11)


def segmented_sheet(raw: Clip, adapted: Clip, proposer: str) -> PIL.Image.Image:
    """Return a few held-out scenes by OVSeg's parts: a row per scene."""
    loaded = load_mask_proposer(proposer)
    return scorers_sheet(
        {
            "proposer alone": OvSegScorer(raw, loaded, weight=0.0),
            "raw CLIP alone": OvSegScorer(raw, loaded, weight=1.0),
            "adapted CLIP alone": OvSegScorer(adapted, loaded, weight=1.0),
            "adapted, both": OvSegScorer(adapted, loaded),
        }
    )


def scorers_sheet(scorers: Mapping[str, Scorer]) -> PIL.Image.Image:
    """Return a few held-out scenes, the truth first, then what each scorer calls every pixel: a row per scene."""
    world = World("val", count=max(SCENES) + 1)
    pictures, titles = [], []
    for scene in SCENES:
        record = world[scene]
        picture = record.load()
        if record.label_map is not None:
            pictures.append(draw_segmentation(picture, record.label_map, World.names, legend=True))
            titles.append("truth")
        for name, scorer in scorers.items():
            pictures.append(segment_by(scorer, picture, World.names).picture())
            titles.append(name)
    return draw_sheet(pictures, titles, columns=1 + len(scorers))
