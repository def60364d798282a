"""Masks by checkpoints of transformers: SAM and its like, and Mask2Former, MaskFormer and OneFormer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from jaxtyping import Bool
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModelForUniversalSegmentation, AutoProcessor, pipeline
from transformers.models.auto.modeling_auto import MODEL_FOR_MASK_GENERATION_MAPPING_NAMES

from closeup.data.record import Record
from closeup.data.spec import read_numbers
from closeup.errors import InputError, ModelError
from closeup.models.clip import digest
from closeup.models.load import chosen_device, fetching
from closeup.predict.mask_files import FoundMasks, found_masks
from closeup.predict.query_masks import THRESHOLD, check_threshold, query_masks

QUERIES = ("mask2former", "maskformer", "oneformer")
"""Kinds of models whose queries give a mask each."""
WHOLE = ("points_per_batch", "points_per_crop", "crops_n_layers", "crop_n_points_downscale_factor")
"""Options of the pipeline ``mask-generation`` that are whole numbers."""
REAL = ("pred_iou_thresh", "stability_score_thresh", "crops_nms_thresh", "crop_overlap_ratio", "mask_threshold")
"""Those that are not."""


@dataclass(frozen=True, slots=True, eq=False)
class PipelineMasks:
    """What the pipeline ``mask-generation`` of SAM and its like finds from a grid of points; the score is SAM's own."""

    name: str
    fingerprint: str
    generate: Any
    options: Mapping[str, float]

    def __call__(self, record: Record, picture: PIL.Image.Image) -> FoundMasks:
        """Return the masks that pass the pipeline's thresholds."""
        found = self.generate(picture, **self.options)
        planes: list[Bool[np.ndarray, "height width"]] = [np.asarray(mask, dtype=bool) for mask in found["masks"]]
        scores = torch.as_tensor(found["scores"]).float().cpu()
        return found_masks(planes, (picture.height, picture.width), f"record {record.id!r}", scores)


@dataclass(frozen=True, slots=True, eq=False)
class QueryMasks:
    """The masks of all queries, not merged to segments; the score is how sure a query is that it found something."""

    name: str
    fingerprint: str
    processor: Any
    model: Any
    threshold: float = THRESHOLD

    def __post_init__(self) -> None:
        check_threshold(self.threshold)

    @torch.inference_mode()
    def __call__(self, record: Record, picture: PIL.Image.Image) -> FoundMasks:
        """Return the masks that have a pixel."""
        del record
        # OneFormer is told in words what to do.
        task = {"task_inputs": ["panoptic"]} if self.model.config.model_type == "oneformer" else {}
        inputs = self.processor(images=picture, return_tensors="pt", **task).to(self.model.device)
        found = self.model(**inputs)
        height, width = inputs["pixel_values"].shape[-2:]
        shown = inputs.get("pixel_mask")
        content = (height, width)
        if shown is not None:
            content = int(shown[0].any(dim=1).sum()), int(shown[0].any(dim=0).sum())
        return query_masks(
            found.masks_queries_logits[0],
            1 - found.class_queries_logits[0].softmax(dim=1)[:, -1],
            canvas=(height, width),
            content=content,
            size=(picture.height, picture.width),
            threshold=self.threshold,
        )


def open_hf_masks(
    line: str, name: str, options: Mapping[str, str], *, device: str = "auto"
) -> PipelineMasks | QueryMasks:
    """Open a checkpoint by its name or folder; ``line`` is what was asked for, with ``options``.

    Raises:
        InputError: an option that there is not for its kind, or a value outside its range.
        ModelError: it cannot be fetched, or is of another kind.
    """
    target = chosen_device(device)
    with fetching(line):
        config = AutoConfig.from_pretrained(name)
    kind = config.model_type
    if kind in MODEL_FOR_MASK_GENERATION_MAPPING_NAMES:
        wanted = _pipeline_options(line, options)
        with fetching(line):
            generate = pipeline("mask-generation", model=name, device=target)
        return PipelineMasks(line, weights_of(generate.model), generate, wanted)
    if kind not in QUERIES:
        known = ", ".join((*MODEL_FOR_MASK_GENERATION_MAPPING_NAMES, *QUERIES))
        raise ModelError(f"{name!r} is a model of the kind {kind!r}, which proposes no masks. Give one of {known}.")
    numbers = read_numbers(line, options, ("threshold",))
    with fetching(line):
        processor = (AutoProcessor if kind == "oneformer" else AutoImageProcessor).from_pretrained(name)
        model = AutoModelForUniversalSegmentation.from_pretrained(name).to(target).eval()
    return QueryMasks(line, weights_of(model), processor, model, **numbers)


def _pipeline_options(line: str, options: Mapping[str, str]) -> dict[str, float]:
    found = read_numbers(line, options, (*WHOLE, *REAL))
    for name in WHOLE:
        if name not in found:
            continue
        least = 0 if name == "crops_n_layers" else 1
        if found[name] < least or found[name] != int(found[name]):
            raise InputError(f"{name}={options[name]} in {line!r}: give a whole number, {least} or more.")
        found[name] = int(found[name])
    return found


def weights_of(model: nn.Module) -> str:
    """Return the hash of a model of transformers: its weights and its settings."""
    config: Any = model.config
    return digest(model.state_dict(), sorted(config.to_diff_dict().items(), key=str))
