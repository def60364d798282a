"""What recipes that distil regions share: a frozen teacher of cut-outs, and a student that pools regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from closeup._types import Embeddings, Images
from closeup.models.clip import Clip
from closeup.models.image_copy import image_copy
from closeup.models.region_features import RegionFeatures
from closeup.recipes.teacher_cache import TeacherStore

VIEWS = 256
"""Cut-outs that the teacher looks at together."""


class Teacher:
    """A frozen copy of an image tower; not a module, so that checkpoints and gradient exchange pass it by."""

    def __init__(self, clip: Clip) -> None:
        self.clip = image_copy(clip)

    @torch.no_grad()
    def __call__(self, views: Images) -> Embeddings:
        """Return the L2-normalised embeddings of pictures at the native size."""
        with torch.autocast(views.device.type, enabled=False):
            return self.clip_on(views.device).encode_image(views, normalize=True)

    def clip_on(self, device: torch.device) -> Clip:
        """Return the copy, moved to a device."""
        return self.clip if self.clip.device == device else self.clip.to(device)


def teacher_identity(clip: Clip) -> dict[str, object]:
    """Return what a teacher's embeddings of cut-outs depend on besides the pictures."""
    return {
        "teacher": clip.fingerprint,
        "precision": clip.precision,
        "preprocess": asdict(clip.image_preprocess),
    }


class Student(nn.Module):
    """A recipe's loss as a module around the student, so that a wrapper for many devices sees every forward pass.

    The student is always in eval mode: what is trained is the function that is used, with running statistics as
    they are and nothing dropped. ``reads`` is how it sees regions. ``scales`` are sizes of which each step draws one
    for the student's pictures.
    """

    def __init__(
        self,
        clip: Clip,
        teacher: Teacher,
        *,
        reads: RegionFeatures,
        scales: Sequence[int] = (),
        store: TeacherStore | None = None,
    ) -> None:
        super().__init__()
        self.visual = clip.tower.visual
        self.reads = reads
        self._clip, self._teacher, self._store = clip, teacher, store
        self._scales = tuple(scales)

    def train(self, mode: bool = True) -> Student:
        """Keep the student in eval mode."""
        super().train(mode)
        self.visual.eval()
        return self

    def pooled(self, images: Images, batch: Mapping[str, Tensor]) -> Embeddings:
        """Return the student's regions of a batch of ``DistillSamples``, from one pass over its pictures."""
        return self.reads.regions(self.reads.features(images), images, batch)

    def targets(self, batch: Mapping[str, Tensor]) -> Embeddings:
        """Return the teacher's embeddings that a batch of ``DistillSamples`` wants, asking for those not at hand."""
        targets = batch["targets"]
        if len(batch["missing"]) == 0:
            return targets
        fresh = torch.cat([self._teacher(views) for views in torch.split(batch["views"], VIEWS)])
        if self._store is not None:
            self._store.write(batch["places"], fresh)
            fresh = fresh.half().float()  # what the next visit will read
        return targets.index_copy(0, batch["missing"], fresh)

    def at_a_drawn_scale(self, images: Images) -> Float[Tensor, "batch 3 _ _"]:
        """Return pictures at one of the scales, drawn for this step."""
        if not self._scales:
            return images
        # The loop seeds torch by the step, so that all devices draw the same.
        side = self._scales[int(torch.randint(len(self._scales), ()))]
        return F.interpolate(images, (side, side), mode="bilinear")
