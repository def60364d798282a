"""What the papers say of open-vocabulary detection, with where each figure is known from."""

from __future__ import annotations

from collections.abc import Mapping

from closeup.reproduce.result import Paper

NOVEL, BASE, EVERY = "novel AP50", "base AP50", "all AP50"
GROUPS = (NOVEL, BASE, EVERY)

_CLIPSELF = "F-ViT on EVA-CLIP ViT-B/16, OV-COCO: the README of wusize/CLIPSelf"
_RAW = "F-ViT on EVA-CLIP ViT-B/16 as it came, OV-COCO: the table of a later paper (FG-CLIP)"

RAW_FVIT: Mapping[str, Paper] = {NOVEL: Paper(17.5, _RAW)}
REGIONCLIP_FVIT: Mapping[str, Paper] = {NOVEL: Paper(34.4, _CLIPSELF)}
PATCHES_FVIT: Mapping[str, Paper] = {NOVEL: Paper(33.6, _CLIPSELF)}
PROPOSALS_FVIT: Mapping[str, Paper] = {NOVEL: Paper(37.6, _CLIPSELF)}

_TABLE_4 = "RegionCLIP (arXiv 2112.09106) Table 4, RN50 on COCO, as recalled"
RAW_TRUTH, REGIONCLIP_TRUTH = Paper(58.3, _TABLE_4), Paper(61.0, _TABLE_4)
RAW_PROPOSED, REGIONCLIP_PROPOSED = Paper(25.5, _TABLE_4), Paper(26.8, _TABLE_4)

_TRANSFER = "RegionCLIP (arXiv 2112.09106), RN50 pre-trained on CC3M, OV-COCO, as recalled; docs/MODEL_ZOO.md"
REGIONCLIP_TRANSFER: Mapping[str, Paper] = {
    NOVEL: Paper(31.4, _TRANSFER),
    BASE: Paper(57.1, _TRANSFER),
    EVERY: Paper(50.4, _TRANSFER),
}
