"""Annotation files like COCO's and LVIS's, with everything in them that a filter could lose."""

from __future__ import annotations

from typing import Any

import numpy as np

from closeup.data.open_vocabulary import COCO_BASE, COCO_NOVEL

OTHERS = (
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "sports ball", "baseball bat", "baseball glove"),
    *("tennis racket", "wine glass", "hot dog", "potted plant", "dining table", "cell phone", "teddy bear"),
    "hair drier",
)
"""COCO's 15 classes that are in neither list."""

SIDE = 48


def coco_document(seed: int, images: int) -> dict[str, Any]:
    """Return a file with COCO's 80 classes in any order, some of the images without a box of the 65."""
    rng = np.random.default_rng(seed)
    names = rng.permutation([*COCO_BASE, *COCO_NOVEL, *OTHERS]).tolist()
    ids = (rng.permutation(90)[: len(names)] + 1).tolist()
    categories = [
        {"supercategory": "thing", "id": number, "name": name} for number, name in zip(ids, names, strict=True)
    ]
    pictures = [{**_image(number), "date_captured": "2013-11-14"} for number in range(1, images + 1)]
    return {
        "info": {"description": "like COCO"},
        "licenses": [{"id": 1, "name": "any"}],
        "images": pictures,
        "annotations": _annotations(pictures, ids, rng),
        "categories": categories,
    }


def lvis_document(seed: int, images: int) -> dict[str, Any]:
    """Return a file with nine classes, three of each frequency, and what LVIS says of its images."""
    rng = np.random.default_rng(seed)
    names = ("cup", "bow_(weapon)", "Bible", "tote bag", "fig", "gourd", "zither", "aerosol_can", "bun")
    categories = [
        {
            "id": number,
            "name": name,
            "synonyms": [name.replace("_", " ")],
            "frequency": "rcf"[number % 3],
            "image_count": number,
        }
        for number, name in enumerate(names, start=1)
    ]
    pictures = [
        {
            **_image(number),
            "neg_category_ids": (rng.permutation(9)[: rng.integers(0, 4)] + 1).tolist(),
            "not_exhaustive_category_ids": (rng.permutation(9)[: rng.integers(0, 2)] + 1).tolist(),
        }
        for number in range(1, images + 1)
    ]
    return {
        "info": {"version": "v1"},
        "licenses": [{"id": 1, "name": "any"}],
        "images": pictures,
        "annotations": _annotations(pictures, list(range(1, 10)), rng),
        "categories": categories,
    }


def _image(number: int) -> dict[str, Any]:
    return {"id": number, "file_name": f"{number:012}.png", "height": SIDE, "width": SIDE, "license": 1}


def _annotations(images: list[dict[str, Any]], ids: list[int], rng: np.random.Generator) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for image in images:
        for _ in range(int(rng.integers(0, 4))):
            left, top = rng.integers(0, SIDE // 2, 2).tolist()
            wide, high = rng.integers(8, SIDE // 2, 2).tolist()
            made.append(
                {
                    "id": len(made) + 1,
                    "image_id": image["id"],
                    "category_id": int(rng.choice(ids)),
                    "bbox": [left, top, wide, high],
                    "area": wide * high,
                    "iscrowd": int(rng.random() < 0.1),
                    "segmentation": [[left, top, left + wide, top, left + wide, top + high]],
                }
            )
    return made
