"""RegionCLIP's losses as one module: the student's regions, the teacher's labels, and captions of whole pictures."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from closeup._types import Embeddings, Images
from closeup.models.clip import Clip
from closeup.models.preprocess import renormalised
from closeup.models.region_features import region_features
from closeup.recipes.contrastive import contrastive_loss, same_captions
from closeup.recipes.gather import gather, gather_ragged
from closeup.recipes.region_text import (
    concept_contrast,
    concept_distillation,
    federated_nouns,
    noun_loss,
    pseudo_labels,
)
from closeup.recipes.regionclip_config import RegionClipConfig
from closeup.recipes.student import Student, Teacher
from closeup.recipes.teacher_cache import TeacherStore


class RegionText(Student):
    """RegionCLIP's losses, or the noun baseline's."""

    concepts: Tensor
    teacher_concepts: Tensor

    def __init__(
        self,
        clip: Clip,
        teacher: Teacher,
        config: RegionClipConfig,
        concepts: Embeddings,
        teacher_concepts: Float[Tensor, "count teacher_dim"],
        *,
        cut: bool,
        store: TeacherStore | None = None,
    ) -> None:
        reads, teacher_reads = (
            region_features(each, route=config.route, window=config.window) for each in (clip, teacher.clip)
        )
        super().__init__(clip, teacher, reads=reads, scales=config.scales, store=store)
        self._config, self.cut = config, cut
        self._teacher_reads = teacher_reads
        self.register_buffer("concepts", concepts.to(clip.device), persistent=False)
        self.register_buffer("teacher_concepts", teacher_concepts.to(clip.device), persistent=False)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss of a batch and its parts, each before its weight, and the share of regions kept."""
        images = self.at_a_drawn_scale(batch["images"])
        features = self.reads.features(images)
        regions = self.reads.regions(features, images, batch)
        seen = self.targets(batch) if self.cut else self._read_by_teacher(batch)
        with torch.autocast(images.device.type, enabled=False):  # cosines over 0.01 have no room in half precision
            return self._losses(features, regions.float(), seen.float(), images, batch)

    def _losses(
        self, features: Tensor, regions: Embeddings, seen: Tensor, images: Images, batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        config = self._config
        if config.objective == "nouns":
            return {"loss": self._nouns(regions, seen)}
        labels = pseudo_labels(seen, self.teacher_concepts, temperature=config.temperature, threshold=config.threshold)
        kept = regions[labels.rows]
        keys, share = labels.labels, 1.0
        if config.negatives == "gathered":
            keys, share = gather_ragged(keys), _share(len(keys), kept)
        given = {}
        if config.contrast:
            given["contrast"] = share * concept_contrast(
                kept, labels.labels, self.concepts[keys], keys, temperature=config.temperature
            )
        if config.distill:
            given["distill"] = share * concept_distillation(
                kept, self.concepts, labels.probabilities, temperature=config.temperature
            )
        if config.image_text:
            extents = [extent[None] for extent in batch["extents"]]
            wholes = torch.cat(self.reads.boxes(features, images, extents))
            given["image_text"] = self._captions(wholes, batch)
        loss = sum((getattr(config, name) * value for name, value in given.items()), features.sum() * 0)
        return {"loss": loss, **given, "kept": loss.new_tensor(len(kept) / max(len(regions), 1))}

    @torch.no_grad()
    def _read_by_teacher(self, batch: Mapping[str, Tensor]) -> Embeddings:
        """Return what the teacher reads off the same pictures, at their full size and normalised as it wants them."""
        clip = self._teacher.clip_on(batch["images"].device)
        images = renormalised(batch["images"], self._clip.image_preprocess, clip.image_preprocess)
        with torch.autocast(images.device.type, enabled=False):
            return self._teacher_reads.regions(self._teacher_reads.features(images), images, batch)

    def _captions(self, wholes: Embeddings, batch: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Return the contrastive loss of the pictures that have a caption, of all devices; 0 where none has."""
        with torch.no_grad():
            texts = self._clip.encode_tokens(batch["tokens"], normalize=True)
        captioned = gather(batch["captioned"]).nonzero()[:, 0]
        images = gather(normalize(wholes.float(), dim=1))[captioned]
        if not len(captioned):
            return images.sum()
        same = same_captions(gather(batch["tokens"])[captioned])
        scale = images.new_tensor(1 / self._config.temperature)
        return contrastive_loss(images, gather(texts.float())[captioned], scale, same)

    def _nouns(self, regions: Embeddings, seen: Embeddings) -> Float[Tensor, ""]:
        labels = pseudo_labels(seen, self.teacher_concepts, threshold=0.0).labels
        columns = federated_nouns(labels, len(self.concepts), drawn=self._config.nouns)
        scale = regions.new_tensor(self._clip.logit_scale)
        return _share(len(labels), regions) * noun_loss(regions, self.concepts, labels, scale, columns)


def _share(rows: int, like: Tensor) -> float:
    """Return this device's number of rows over the mean of all: losses so weighed have the mean of all rows."""
    if not (dist.is_available() and dist.is_initialized()):
        return 1.0
    counts = gather(torch.tensor([float(rows)], device=like.device))
    return float(rows / counts.mean().clamp(min=1e-9))
