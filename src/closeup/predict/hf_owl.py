"""Detectors of captions by checkpoints of transformers: OWL-ViT and OWLv2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import PIL.Image
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoConfig, AutoProcessor, Owlv2ForObjectDetection, OwlViTForObjectDetection
from transformers.models.owlvit.modeling_owlvit import OwlViTObjectDetectionOutput

from closeup.errors import ModelError
from closeup.evaluate import Answer
from closeup.models.load import chosen_device, fetching
from closeup.predict.hf_masks import weights_of
from closeup.predict.provenance import Provenance, Setting, describe_foreign

HF = "hf"
"""The beginning of a line that names a checkpoint of transformers."""

MODELS = {"owlvit": OwlViTForObjectDetection, "owlv2": Owlv2ForObjectDetection}
"""The kinds of checkpoints."""


@dataclass(frozen=True, slots=True, eq=False)
class HfOwl:
    """OWL-ViT or OWLv2: each patch gives a box, and a probability of each caption for itself.

    It reads captions of 16 tokens at most, the first and the last one among them; a list with a longer one has no
    answer, as in FG-OVD's evaluation.

    Source: Minderer et al., OWL-ViT (arXiv 2205.06230) and OWLv2 (arXiv 2306.09683), as transformers has them; FG-OVD
    ``detectors_inferences/owl_inference.py``.
    """

    name: str
    fingerprint: str
    processor: Any
    model: Any
    known: dict[str, Float[Tensor, " dim"] | None] = field(default_factory=dict)
    """The embedding of every caption so far; None where it is too long."""

    @torch.inference_mode()
    def ask(self, image: str, picture: PIL.Image.Image, asked: Sequence[tuple[str, ...]]) -> list[Answer | None]:
        """Return the answers; see ``CaptionDetector``. Boxes may reach beyond the picture."""
        readable = [all(self._embedding(caption) is not None for caption in captions) for captions in asked]
        if not any(readable):
            return [None] * len(asked)
        inputs = self.processor(images=picture, return_tensors="pt").to(self.model.device)
        grid, _ = self.model.image_embedder(inputs["pixel_values"])
        cells = grid.flatten(1, 2)
        fractions = self.model.box_predictor(cells, grid)
        answers: list[Answer | None] = []
        for captions, fits in zip(asked, readable, strict=True):
            if not fits:
                answers.append(None)
                continue
            queries = torch.stack([self.known[caption] for caption in captions])  # type: ignore[misc]  # none is too long
            logits, _ = self.model.class_predictor(cells, queries[None])
            boxes = self._boxes(logits, fractions, (picture.height, picture.width))
            answers.append(Answer(image, captions, boxes.cpu(), logits[0].sigmoid().cpu()))
        return answers

    def provenance(self, **settings: Setting) -> Provenance:
        """Return what made the answers so far."""
        sides = self.processor.image_processor.size
        read = [caption for caption, embedding in self.known.items() if embedding is not None]
        return describe_foreign(
            self.name,
            self.fingerprint,
            read,
            region_encoder=self.model.config.model_type,
            image_size=(sides["height"], sides["width"]),
            **settings,
        )

    def _embedding(self, caption: str) -> Float[Tensor, " dim"] | None:
        if caption not in self.known:
            room = self.model.config.text_config.max_position_embeddings
            tokens = self.processor.tokenizer(caption, padding="max_length", max_length=room, return_tensors="pt")
            fits = tokens["input_ids"].shape[1] <= room
            self.known[caption] = self._encoded(tokens["input_ids"], tokens["attention_mask"]) if fits else None
        return self.known[caption]

    def _encoded(self, tokens: Int[Tensor, "1 tokens"], shown: Int[Tensor, "1 tokens"]) -> Float[Tensor, " dim"]:
        device, tower = self.model.device, self.model.base_model
        # In both its fourth and fifth version; what get_text_features returns is not the same in the two.
        read = tower.text_model(input_ids=tokens.to(device), attention_mask=shown.to(device))
        found: Tensor = tower.text_projection(read.pooler_output)[0]
        return found

    def _boxes(self, logits: Tensor, fractions: Tensor, size: tuple[int, int]) -> Float[Tensor, "cells 4"]:
        """Return all boxes in pixels of the picture, each kind by its own rule: OWLv2 pads pictures to squares."""
        raw = OwlViTObjectDetectionOutput(logits=logits, pred_boxes=fractions)
        (found,) = self.processor.image_processor.post_process_object_detection(raw, -1.0, [size])
        boxes: Tensor = found["boxes"]
        return boxes


def open_hf_owl(line: str, name: str, *, device: str = "auto") -> HfOwl:
    """Open a checkpoint by its name or folder; ``line`` is what was asked for.

    Raises:
        ModelError: it cannot be fetched, or is of another kind.
    """
    target = chosen_device(device)
    with fetching(line):
        kind = AutoConfig.from_pretrained(name).model_type
    if kind not in MODELS:
        raise ModelError(f"{name!r} is a model of the kind {kind!r}, which is asked for no captions. Give an OWL-ViT.")
    with fetching(line):
        processor = AutoProcessor.from_pretrained(name)
        model = MODELS[kind].from_pretrained(name).to(target).eval()
    return HfOwl(line, weights_of(model), processor, model)
