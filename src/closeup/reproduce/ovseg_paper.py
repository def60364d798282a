"""What OVSeg says of ADE20K-150 in its Tables 2 to 6, as mean IoU in percent."""

from __future__ import annotations

from collections.abc import Mapping

from closeup.reproduce.result import Paper

MIOU = "mIoU"


def _table(number: str, model: str = "Swin-B and ViT-L/14") -> str:
    return f"OVSeg (arXiv 2210.04150) {number}, ADE20K-150, {model}"


ADAPTED: Mapping[str, Paper] = {
    "raw": Paper(21.8, _table("Table 3")),
    "mask prompts": Paper(26.5, _table("Table 3")),
    "tower": Paper(28.8, _table("Table 3")),
    "tower, then mask prompts": Paper(29.6, _table("Table 3")),
}
ENSEMBLE: Mapping[str, Paper] = {
    "the proposer alone": Paper(19.6, _table("Table 4")),
    "raw: CLIP alone": Paper(14.3, _table("Table 4")),
    "raw: both": Paper(21.8, _table("Table 4")),
    "adapted: CLIP alone": Paper(25.1, _table("Table 4")),
    "adapted: both": Paper(29.6, _table("Table 4")),
}
ORDER: Mapping[str, Paper] = {
    "tower, then mask prompts": Paper(29.6, _table("Table 5")),
    "mask prompts, then tower": Paper(28.1, _table("Table 5")),
    "both at once": Paper(29.0, _table("Table 5")),
}
DEPTH: Mapping[str, Paper] = {
    "mask prompts at 1 place": Paper(25.7, _table("Table 6")),
    "mask prompts at 3 places": Paper(26.5, _table("Table 6")),
    "mask prompts at 6 places": Paper(26.8, _table("Table 6")),
    "tower, then mask prompts at 1 place": Paper(29.3, _table("Table 6")),
    "tower, then mask prompts at 3 places": Paper(29.6, _table("Table 6")),
    "tower, then mask prompts at 6 places": Paper(29.4, _table("Table 6")),
}
ORACLE: Mapping[str, Paper] = {
    "true masks, raw CLIP on masked crops": Paper(20.1, _table("the study with oracles")),
    "true masks, raw CLIP on whole crops": Paper(13.8, _table("the study with oracles")),
    "the proposer's masks, true words": Paper(66.5, _table("the study with oracles")),
}
