"""Results as COCO annotations: one document of images, categories and annotations that carry scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from closeup._types import Boxes, ImageLike, Labels, Masks
from closeup.data.atomic import write_json
from closeup.data.rle import encode_mask
from closeup.errors import InputError
from closeup.geometry import areas, masks_to_boxes, xyxy_to_xywh
from closeup.predict.provenance import Provenance


@runtime_checkable
class Annotated(Protocol):
    """A result that can be told as regions with one label each."""

    @property
    def image(self) -> ImageLike: ...  # noqa: D102
    @property
    def size(self) -> tuple[int, int]: ...  # noqa: D102
    @property
    def names(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def provenance(self) -> Provenance: ...  # noqa: D102
    def annotations(self) -> list[dict[str, Any]]: ...  # noqa: D102


def coco_document(results: Iterable[Annotated]) -> dict[str, Any]:
    """Return results over one vocabulary as one COCO instances document, fit for ``pycocotools.coco.COCO``.

    Images and annotations are numbered from 1 in the order of the results, and category ``i + 1`` is name
    ``i``. Annotations carry ``score``, so the table of annotations alone is a COCO results file
    (``COCO.loadRes``). ``info`` holds the provenance of the first result.

    Raises:
        InputError: where there is no result, or results have different names.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    first: Annotated | None = None
    for result in results:
        first = result if first is None else first
        if result.names != first.names:
            raise InputError(f"Result {len(images)} has other names than result 0: one file holds one vocabulary.")
        number = len(images) + 1
        images.append({"id": number, "file_name": _file_name(result.image, number), **_sides(result.size)})
        for annotation in result.annotations():
            annotations.append({"id": len(annotations) + 1, "image_id": number, "iscrowd": 0, **annotation})
    if first is None:
        raise InputError("There is no result to write: no image could be used.")
    return {
        "info": {"description": "Made by Closeup", "closeup": first.provenance.to_dict()},
        "images": images,
        "categories": [{"id": i, "name": name, "supercategory": ""} for i, name in enumerate(first.names, start=1)],
        "annotations": annotations,
    }


def save_coco(results: Iterable[Annotated], path: str | Path) -> Path:
    """Write ``coco_document`` as a json file, whole or not at all, and return its path.

    Raises:
        InputError: as ``coco_document`` does.
    """
    path = Path(path).expanduser()
    write_json(path, coco_document(results))
    return path


def region_annotations(
    boxes: Boxes | None, masks: Masks | None, labels: Labels, scores: Float[Tensor, " count"] | Sequence[float]
) -> list[dict[str, Any]]:
    """Return one annotation per region: xywh box (of the mask where there are no boxes), area, label, score, mask."""
    frames = boxes if boxes is not None else masks_to_boxes(masks) if masks is not None else torch.zeros(0, 4)
    area = areas(frames) if masks is None else masks.sum(dim=(1, 2))
    rows = zip(xyxy_to_xywh(frames).tolist(), area.tolist(), labels.tolist(), map(float, scores), strict=True)
    found: list[dict[str, Any]] = [
        {"category_id": label + 1, "bbox": box, "area": float(size), "score": score} for box, size, label, score in rows
    ]
    if masks is not None:
        for annotation, mask in zip(found, masks.cpu().numpy(), strict=True):
            annotation["segmentation"] = encode_mask(mask)
    return found


def _file_name(image: ImageLike, number: int) -> str:
    return Path(image).name if isinstance(image, str | Path) else f"image-{number}"


def _sides(size: tuple[int, int]) -> dict[str, int]:
    return {"height": size[0], "width": size[1]}
