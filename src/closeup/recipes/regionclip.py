"""Recipe ``regionclip``: regions learn the words that captions of a whole collection use.

    q_r = softmax_c(cos(t_r, c) / T)            the teacher's concepts of a region, frozen
    v_r = region r of the student's picture     the student
    L   = w_con L_con(v, argmax q) + w_dist KL(q || softmax_c(cos(v, c) / T)) + w_img L_img(whole picture, caption)

Concepts ``c`` are nouns mined from captions (``text.concepts``), embedded once; the text tower stays as it is. The
losses are written out in ``recipes.region_text``, the last one in ``recipes.contrastive``. The whole picture is read
as one more region, the box around it.

With ``objective="nouns"`` it is the baseline of CLIPSelf's Table 6 instead: the teacher's label of each region against
a random draw of nouns, each a yes-or-no question.

Source: Zhong et al., RegionCLIP, CVPR 2022 (arXiv 2112.09106); ``microsoft/RegionCLIP``
``modeling/meta_arch/clip_rcnn.py``. There the teacher reads regions off the picture as the student does, which suits
ResNets; here it may look at them cut out. Equal captions in a batch are negatives of each other there, and are left
out here. The threshold is for the regions of one device: where the teacher is sure of none of them, all are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from closeup.data.record import Reader
from closeup.errors import ConfigError
from closeup.models.blocks import region_blocks
from closeup.models.clip import Clip
from closeup.models.load import load
from closeup.models.resnet import ResNetTower
from closeup.recipes.distill_regions import region_sources
from closeup.recipes.distill_samples import DistillSamples, Sample
from closeup.recipes.precompute import precompute
from closeup.recipes.recipe import Recipe
from closeup.recipes.region_config import CELLS
from closeup.recipes.regionclip_config import RegionClipConfig
from closeup.recipes.regionclip_loss import RegionText
from closeup.recipes.student import Teacher, teacher_identity
from closeup.recipes.teacher_cache import TeacherStore
from closeup.text import Vocabulary, build_bank
from closeup.text.concepts import read_concepts

STAGE_SIZE = 1333
"""Longest side of pictures for CLIP's ResNets (``INPUT.MAX_SIZE_TRAIN``)."""

Captioned = tuple[Sample, Tensor | None]
"""A sample, and the tokens of the caption of this visit."""


class RegionClip(Recipe):
    """Region-text pre-training with pseudo labels, for any tower.

    CLIP's ResNets read each box through their fourth stage and attention pool and learn the last three stages and the
    pool without their norms, as the official code; other towers pool their dense map and learn blocks. The model must
    be as it came: the teacher is copied from it here. ``cache`` is a folder for the embeddings of a teacher that looks
    at cut-outs.

    Raises:
        ConfigError: no concepts, more blocks than there are, or masks for a tower that reads boxes.
        InputError: a route that the tower does not know.
        DataError: no pictures, no readable concepts, or pictures without the regions that are asked for.
    """

    name: ClassVar[str] = "regionclip"
    divisible = False

    def __init__(
        self,
        clip: Clip,
        reader: Reader,
        config: RegionClipConfig | None = None,
        *,
        seed: int = 0,
        cache: str | Path | None = None,
        probe: Callable[[], Mapping[str, float]] | None = None,
    ) -> None:
        self.clip = clip
        self.config = config = config or RegionClipConfig()
        if not config.concepts:
            raise ConfigError("`concepts` is empty. Give a file of them; `closeup concepts` mines one from captions.")
        vocabulary = Vocabulary(read_concepts(config.concepts))
        staged = isinstance(clip.tower, ResNetTower)
        self.size = config.size or (STAGE_SIZE if staged else CELLS * clip.patch)
        asked = clip
        if config.teacher_model:
            asked = load(config.teacher_model, device=clip.device, precision=clip.precision)
        cut = config.teacher == "crops" or (config.teacher == "auto" and not isinstance(asked.tower, ResNetTower))
        for reads in (clip, clip if cut else asked):
            if isinstance(reads.tower, ResNetTower) and (config.regions == "masks" or config.window is not None):
                raise ConfigError(f"{reads.name!r} reads boxes through its last stage: no `window`, and not masks.")
        store = None if cache is None or not cut else TeacherStore(cache, teacher_identity(asked), asked.dim)
        self.samples = DistillSamples(
            clip, reader, region_sources(config, cache), size=self.size, seed=seed, store=store, teacher=asked, cut=cut
        )
        self._seed, self._probe = seed, probe
        self._captioned = config.objective == "concepts" and config.image_text > 0
        self._tokens = lru_cache(maxsize=100_000)(lambda text: clip.tokenizer([text])[0])
        self.teacher = Teacher(asked)
        banks = [
            build_bank(each, vocabulary, templates=config.templates, mean="mean-of-raw", clean="regionclip").embeddings
            for each in (clip, asked)
        ]
        self.module: RegionText = RegionText(clip, self.teacher, config, banks[0], banks[1], cut=cut, store=store)
        self._trainable = self.module.reads.moving(region_blocks(clip, config.blocks))

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the parameters of the last blocks, or stages and attention pool, that the loss depends on."""
        return self._trainable

    def sample(self, position: int) -> Captioned:
        """Return a picture, its regions of this visit, and one of its captions."""
        sample = self.samples[position]
        if not sample.captions or not self._captioned:
            return sample, None
        rng = np.random.default_rng([self._seed, 3, position])
        return sample, self._tokens(sample.captions[int(rng.integers(len(sample.captions)))])

    def collate(self, samples: Sequence[Captioned]) -> dict[str, Tensor]:
        """Stack pictures, lay their regions side by side, and add the captions of those that have one."""
        pictures, captions = zip(*samples, strict=True)
        batch = self.samples.collate(pictures)
        batch["extents"] = torch.stack([sample.extent for sample in pictures])
        batch["captioned"] = torch.tensor([tokens is not None for tokens in captions])
        if self._captioned:
            blank = torch.zeros_like(self._tokens(""))
            batch["tokens"] = torch.stack([blank if tokens is None else tokens for tokens in captions])
        return batch

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Leave gains, biases and norms undecayed."""
        return parameter.ndim >= 2 and not any(part in name for part in ("bn", "ln", "bias"))

    def evaluate(self) -> dict[str, float]:
        """Return what the probe measures."""
        return dict(self._probe()) if self._probe is not None else {}

    def precompute(self, *, workers: int = 0, rank: int = 0, world: int = 1) -> Iterator[int]:
        """Fill the cache with everything that may be drawn, yielding each record that is done; call before training.

        Raises:
            ConfigError: the teacher reads regions off the picture, so there is nothing to keep.
        """
        if not self.module.cut:
            raise ConfigError("The teacher reads regions off the picture, and nothing is cached. Drop `precompute`.")
        return precompute(self.samples, self.teacher, workers=workers, rank=rank, world=world)
