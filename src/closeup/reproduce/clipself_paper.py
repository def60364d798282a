"""CLIPSelf's own figures, with where each is known from."""

from __future__ import annotations

from collections.abc import Mapping

from closeup.reproduce.result import Paper

_TABLE_2 = "CLIPSelf (arXiv 2310.01403) Table 2, EVA-CLIP ViT-B/16 at 1024 px on COCO panoptic, as recalled"
_CONFIRMED = f"{_TABLE_2}; the raw model's boxes as measured by users of the code (wusize/CLIPSelf issues 28 and 40)"
_CROPS = (
    "crops of the raw model at 224 px on COCO panoptic, as measured by a user of the code (wusize/CLIPSelf issue 28)"
)

BOXES, BOXES_5 = "boxes top-1", "boxes top-5"
THINGS, THINGS_5 = "thing masks top-1", "thing masks top-5"
STUFF, STUFF_5 = "stuff masks top-1", "stuff masks top-5"

METRICS = (
    (BOXES, "boxes", "things", 1),
    (BOXES_5, "boxes", "things", 5),
    (THINGS, "masks", "things", 1),
    (THINGS_5, "masks", "things", 5),
    (STUFF, "masks", "stuff", 1),
    (STUFF_5, "masks", "stuff", 5),
)
"""The columns of Table 2: name, shape, kind of region, and how many guesses count."""


def _row(figures: tuple[float, ...], source: str) -> Mapping[str, Paper]:
    return {metric: Paper(value, source) for (metric, *_), value in zip(METRICS, figures, strict=True)}


CROPS: Mapping[str, Paper] = {BOXES: Paper(68.39, _CROPS), BOXES_5: Paper(86.45, _CROPS)}
RAW_MAP = _row((18.2, 33.2, 20.6, 36.5, 18.4, 43.5), _CONFIRMED)
PATCHES_MAP = _row((72.1, 91.3, 74.4, 91.8, 46.8, 80.2), _TABLE_2)
PROPOSALS_MAP = _row((74.0, 92.6, 76.3, 92.8, 36.8, 75.0), _TABLE_2)
