"""A CLIPSelf step in its plain form, written from what is known of the official one, as the bench's other side.

Every step asks the teacher, in full precision. A picture's crops fill a tensor of fixed size, zeros where there are
fewer, and are sifted by a flag before the teacher sees them. The student's blocks run in full, the last one a second
time without attention, from the fused projection of which two thirds are dropped. Boxes are pooled by torchvision.
Source of the facts: ``wusize/CLIPSelf`` ``training/clipself.py``, ``training/data.py``, ``open_clip/transformer.py``.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from closeup.data.registry import open_reader
from closeup.models import load
from closeup.recipes.clipself import ClipSelf
from closeup.recipes.clipself_config import ClipSelfConfig
from closeup.recipes.config import TrainConfig
from closeup.recipes.optimizers import make_optimizers
from closeup.recipes.schedule import warmup_cosine
from closeup.recipes.step import freeze_all_but_trainable


class OfficialStep:
    """Takes one step at every call and returns its loss; pictures, regions and optimiser are the recipe's own."""

    def __init__(self, model: str, folder: Path, config: TrainConfig, distilled: ClipSelfConfig) -> None:
        clip = load(model, device="cpu", precision="fp32")
        self.recipe = ClipSelf(clip, open_reader(str(folder)), distilled, seed=config.seed)
        self.config, self.slots, self.native = config, distilled.max_regions, clip.image_size
        self.student: Any = clip.model.visual
        self.teacher: Any = deepcopy(clip.model.visual).eval().requires_grad_(False)
        (self.optimizer,) = make_optimizers(self.recipe, freeze_all_but_trainable(self.recipe), config)
        self.done = 0

    def __call__(self) -> float:
        """Take the next step and return its loss."""
        images, boxes, valid, crops = self._batch()
        rate = self.config.rate * warmup_cosine(self.done, steps=self.config.steps, warmup=self.config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.no_grad():
            wanted = F.normalize(self.teacher(crops[valid]), dim=-1)
        maps = F.normalize(self._dense(images), dim=1)
        cells = [part[kept] * maps.shape[-1] for part, kept in zip(boxes, valid, strict=True)]
        pooled = roi_align(maps, cells, (1, 1), 1.0, -1, aligned=True)[..., 0, 0]
        loss = 1 - (F.normalize(pooled, dim=-1) * wanted).sum(dim=-1).mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.done += 1
        return float(loss.detach())

    def _batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        first = self.done * self.config.batch_size
        samples = [self.recipe.sample(first + offset) for offset in range(self.config.batch_size)]
        boxes = torch.zeros(len(samples), self.slots, 4)
        valid = torch.zeros(len(samples), self.slots, dtype=torch.bool)
        crops = torch.zeros(len(samples), self.slots, 3, *self.native)
        for index, sample in enumerate(samples):
            count = len(sample.boxes)
            boxes[index, :count], valid[index, :count] = sample.boxes, True
            crops[index, :count] = sample.regions.views if sample.regions is not None else 0
        return torch.stack([sample.image for sample in samples]), boxes, valid, crops

    def _dense(self, images: Tensor) -> Tensor:
        visual = self.student
        patches = visual.conv1(images)
        rows, cols = patches.shape[2:]
        tokens = torch.cat([visual.class_embedding.expand(len(images), 1, -1), patches.flatten(2).mT], dim=1)
        tokens = visual.ln_pre(tokens + self._positions(rows, cols))
        blocks = visual.transformer.resblocks
        for block in blocks[:-1]:
            tokens = block(tokens)
        blocks[-1](tokens)  # computed and not used
        joint: Tensor = visual.ln_post(_without_attention(blocks[-1], tokens)[:, 1:]) @ visual.proj
        return joint.mT.reshape(len(images), -1, rows, cols)

    def _positions(self, rows: int, cols: int) -> Tensor:
        start, places = self.student.positional_embedding[:1], self.student.positional_embedding[1:]
        grid = places.mT.reshape(1, -1, *self.student.grid_size)
        resized = F.interpolate(grid, (rows, cols), mode="bicubic", align_corners=False)
        return torch.cat([start, resized.flatten(2)[0].mT])


def _without_attention(block: Any, tokens: Tensor) -> Tensor:  # noqa: ANN401 - open_clip's blocks have no types
    attention = block.attn
    joined = F.linear(block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias)
    values = joined.chunk(3, dim=-1)[2]
    tokens = tokens + block.ls_1(attention.out_proj(values))
    moved: Tensor = tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
    return moved
