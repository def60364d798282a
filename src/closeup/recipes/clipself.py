"""Recipe ``clipself``: a CLIP teaches its own dense map what it knows about cut-out regions.

    f_r = pool over region r of the dense map of the whole picture          (student)
    t_r = embedding of the picture of region r, cut out                     (teacher, frozen)
    L   = 1 - mean over all regions r of a batch of  cos(f_r, t_r)

The map is L2-normalised before it is pooled, by RoIAlign for boxes and by a weighted mean for masks. The teacher is
the model as it was before training. No label and no text takes part.

``keep_global`` adds ``w (1 - mean over views of cos(g, h))``, with ``g`` the student's embedding of a view at the
native size, as a picture of its own, and ``h`` the teacher's; views are the whole picture and ``keep_crops`` of its
regions cut out. The author of CLIPSelf names a term at the level of pictures as the remedy for what the method loses
there, and does not use one. Cut-outs show what photographs are of; whole scenes alone would hold the model to scenes.

Source: Wu et al., CLIPSelf, ICLR 2024 (arXiv 2310.01403); ``wusize/CLIPSelf`` ``training/clipself.py``.
There the mean is over the regions of one device; here it is over those of all devices and of all parts that a batch
is computed in, as if there were one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from closeup.data.record import Reader
from closeup.models.blocks import reached, trainable_blocks
from closeup.models.clip import Clip
from closeup.models.region_features import MapFeatures
from closeup.recipes.clipself_config import ClipSelfConfig
from closeup.recipes.distill_regions import region_sources
from closeup.recipes.distill_samples import DistillSamples, Sample
from closeup.recipes.precompute import precompute
from closeup.recipes.recipe import Recipe
from closeup.recipes.region_config import CELLS
from closeup.recipes.student import Student, Teacher, teacher_identity
from closeup.recipes.teacher_cache import TeacherStore


class ClipSelf(Recipe):
    """Self-distillation of regions into the dense map of any tower.

    The model must be as it came: the teacher is copied from it here, before a resumed training puts the student's
    weights in. ``cache`` is a folder in which teacher embeddings are kept from visit to visit and from run to run;
    what is not there yet is computed as it is needed, or ahead by ``precompute``. ``probe`` measures the student for
    the log. The teacher computes in the precision of ``clip``, whatever the loop's.

    Raises:
        ConfigError: more blocks than there are.
        InputError: a route that the tower does not know, or a window where it has no attention between cells.
        DataError: no pictures, or pictures without the regions that are asked for.
    """

    name: ClassVar[str] = "clipself"

    def __init__(
        self,
        clip: Clip,
        reader: Reader,
        config: ClipSelfConfig | None = None,
        *,
        seed: int = 0,
        cache: str | Path | None = None,
        probe: Callable[[], Mapping[str, float]] | None = None,
    ) -> None:
        self.clip = clip
        self.config = config = config or ClipSelfConfig()
        self.size = config.size or CELLS * clip.patch
        self._probe = probe
        store = None if cache is None else TeacherStore(cache, teacher_identity(clip), clip.dim)
        self.samples = DistillSamples(
            clip,
            reader,
            () if config.image_only else region_sources(config, cache),
            size=self.size,
            seed=seed,
            whole=config.image_only or config.keep_global > 0,
            native=config.keep_crops if config.keep_global > 0 else None,
            store=store,
        )
        self.teacher = Teacher(clip)
        self.module: Distillation = Distillation(clip, self.teacher, config, store)
        self._trainable = self.module.moving(trainable_blocks(clip, config.blocks))

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the parameters of the last blocks, but for those that the route leaves out."""
        return self._trainable

    def sample(self, position: int) -> Sample:
        """Return a picture, its regions of this visit, and what the teacher is to be asked."""
        return self.samples[position]

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Stack pictures and lay their regions side by side."""
        return self.samples.collate(samples)

    def terms(self, batch: Mapping[str, Tensor]) -> int | None:
        """Return the number of regions."""
        return None if self.config.image_only else len(batch["owners"])

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Leave gains, biases and norms undecayed, by shape and name (``wusize/CLIPSelf`` ``training/main.py``)."""
        return parameter.ndim >= 2 and not any(part in name for part in ("bn", "ln", "bias"))

    def evaluate(self) -> dict[str, float]:
        """Return what the probe measures."""
        return dict(self._probe()) if self._probe is not None else {}

    def precompute(self, *, workers: int = 0, rank: int = 0, world: int = 1) -> Iterator[int]:
        """Fill the cache with everything that may be drawn, yielding each record that is done; call before training."""
        return precompute(self.samples, self.teacher, workers=workers, rank=rank, world=world)


class Distillation(Student):
    """CLIPSelf's loss."""

    def __init__(self, clip: Clip, teacher: Teacher, config: ClipSelfConfig, store: TeacherStore | None = None) -> None:
        reads = MapFeatures(clip, route=config.route, window=config.window)
        super().__init__(clip, teacher, reads=reads, scales=config.scales, store=store)
        self._config = config

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss of a batch as ``DistillSamples.collate`` makes it."""
        targets = self.targets(batch)
        images = self.at_a_drawn_scale(batch["images"])
        if self._config.image_only:
            return {"loss": one_minus_mean_cosine(self._clip.encode_image(images), targets)}
        count = len(batch["owners"])
        loss = one_minus_mean_cosine(self.pooled(images, batch), targets[:count], batch.get("terms"))
        if not self._config.keep_global:
            return {"loss": loss}
        whole = one_minus_mean_cosine(self._clip.encode_image(batch["natives"]), targets[batch["kept"]])
        return {"loss": loss + self._config.keep_global * whole, "regions": loss, "whole": whole}

    def moving(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
        """Return those of the parameters that the loss depends on."""
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        patch = torch.zeros(1, 3, self._clip.patch, self._clip.patch)
        with torch.enable_grad():
            output = torch.zeros((), device=self._clip.device)
            if not self._config.image_only:
                output = output + self.reads.features(patch).sum()
            if self._config.image_only or self._config.keep_global:
                output = output + self._clip.encode_image(patch).sum()
            return reached(output, parameters)


def one_minus_mean_cosine(
    student: Float[Tensor, "pairs dim"],
    teacher: Float[Tensor, "pairs dim"],
    terms: Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    """Return ``1 - mean cos`` of all pairs.

    Where these are some of the pairs of a batch, ``terms`` is the mean number of pairs that its parts have: divided by
    it, and not by each part's own number, the mean of the parts' losses is the loss of the batch.
    """
    cosines = (F.normalize(student.float(), dim=1) * F.normalize(teacher.float(), dim=1)).sum(dim=1)
    return 1 - cosines.sum() / (max(len(cosines), 1) if terms is None else terms)
