"""What recipes that distil regions share: a frozen teacher of cut-outs, and a student that pools regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from closeup._types import DenseMap, Embeddings, Images
from closeup.models.clip import Clip
from closeup.models.routes import Route
from closeup.models.windows import Window
from closeup.recipes.teacher_cache import TeacherStore
from closeup.regions import pool_boxes, pool_masks


class Teacher:
    """A frozen copy of an image tower; not a module, so that checkpoints and gradient exchange pass it by."""

    def __init__(self, clip: Clip) -> None:
        holder = nn.Module()
        holder.visual = deepcopy(clip.tower.visual).eval().requires_grad_(False)
        self._clip = Clip(holder, clip.config, name=clip.name, precision=clip.precision)

    @torch.no_grad()
    def __call__(self, views: Images) -> Embeddings:
        """Return the L2-normalised embeddings of pictures at the native size."""
        if self._clip.device != views.device:
            self._clip.to(views.device)
        with torch.autocast(views.device.type, enabled=False):
            return self._clip.encode_image(views, normalize=True)


class Student(nn.Module):
    """A recipe's loss as a module around the student, so that a wrapper for many devices sees every forward pass.

    The student is always in eval mode: what is trained is the function that is used, with running statistics as
    they are and nothing dropped. ``scales`` are sizes of which each step draws one for the student's pictures.
    """

    def __init__(
        self,
        clip: Clip,
        teacher: Teacher,
        *,
        route: str | Route,
        window: Window | None = None,
        scales: Sequence[int] = (),
        store: TeacherStore | None = None,
    ) -> None:
        super().__init__()
        self.visual = clip.tower.visual
        self._clip, self._teacher, self._store = clip, teacher, store
        self._route, self._window, self._scales = route, window, tuple(scales)

    def train(self, mode: bool = True) -> Student:
        """Keep the student in eval mode."""
        super().train(mode)
        self.visual.eval()
        return self

    def maps(self, images: Images) -> DenseMap:
        """Return the student's dense maps."""
        return self._clip.encode_dense(images, route=self._route, window=self._window)

    def pooled(self, images: Images, batch: Mapping[str, Tensor]) -> Embeddings:
        """Return the regions of a batch of ``DistillSamples``, pooled from the student's maps of its pictures."""
        maps = self.maps(images)
        counts = torch.bincount(batch["owners"], minlength=len(images)).tolist()
        with torch.autocast(maps.device.type, enabled=False):
            if "masks" in batch:
                masks = batch["masks"]
                if masks.shape[1:] != maps.shape[2:]:  # a drawn scale: cells are shared out by area
                    masks = F.interpolate(masks[None], maps.shape[2:], mode="area")[0]
                return torch.cat(pool_masks(maps, torch.split(masks, counts)))
            height, width = images.shape[2:]
            cells = batch["boxes"] * batch["boxes"].new_tensor([width, height] * 2) / self._clip.patch
            return torch.cat(pool_boxes(maps, torch.split(cells, counts)))

    def targets(self, batch: Mapping[str, Tensor]) -> Embeddings:
        """Return the teacher's embeddings that a batch of ``DistillSamples`` wants, asking for those not at hand."""
        targets = batch["targets"]
        if len(batch["missing"]) == 0:
            return targets
        fresh = self._teacher(batch["views"])
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
