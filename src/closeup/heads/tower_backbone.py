"""A CLIP's image tower as the backbone of a dense predictor: it learns, and its maps come at four sizes."""

from __future__ import annotations

import torch
from torch import nn

from closeup._types import Images
from closeup.errors import ModelError
from closeup.heads.backbone import tapped
from closeup.heads.denseclip_config import DenseClipConfig
from closeup.heads.pyramid import VitPyramid
from closeup.models.blocks import reached
from closeup.models.clip import Clip
from closeup.models.reading import Reading
from closeup.models.stage_tower import StageTower
from closeup.models.vit import VitTower

SAMPLE = 4
"""Side in patches of the picture by which it is found out what learns."""


class TowerBackbone(nn.Module):
    """The image tower of a CLIP without a text tower (``models.image_tower``), which learns from here on.

    Of a tower of stages the four maps are its own, of a ViT those of four blocks, brought to four sizes by a pyramid
    with norms over each picture. ``score_level`` is the level whose cells are the dense map's. Where words are not
    wanted (``language``), the tower's maps are all that is computed, and what only the joint space needs is frozen;
    the route is of no account then.

    Raises:
        ModelError: a ViT of fewer than four blocks, or settings that are for ViTs alone.

    Source: ``raoyongming/DenseCLIP`` ``segmentation/denseclip/models.py``.
    """

    def __init__(self, clip: Clip, config: DenseClipConfig) -> None:
        super().__init__()
        self.clip, self._route, self._language = clip, config.route, config.language
        self.visual = clip.tower.visual.requires_grad_(True)
        staged = isinstance(clip.tower, StageTower)
        if staged and config.blocks:
            raise ModelError(f"`blocks` {config.blocks} are of a ViT; a {clip.tower.family} tower has four stages.")
        if isinstance(clip.tower, VitTower):
            clip.tower.positions, clip.tower.class_embedding = "bilinear", config.class_embedding
        elif config.class_embedding == "double":
            raise ModelError(f"A {clip.tower.family} tower has no class embedding that could count double.")
        self.blocks = config.blocks or ((0, 1, 2, 3) if staged else tapped(clip.blocks))
        self.score_level = 3 if staged else 2
        self.widths = self._freeze_all_but_reached(config)
        self.spread: nn.Module = nn.Identity() if staged else VitPyramid(self.widths[0], norms=True)
        finest = clip.patch / (8 if staged else 4)
        self.strides = [finest * 2**level for level in range(4)]

    def _freeze_all_but_reached(self, config: DenseClipConfig) -> list[int]:
        """Let what the head is made from learn and nothing else; return the channels of the four maps."""
        training = self.visual.training
        self.visual.eval()  # running means stay as they are
        with torch.inference_mode(False), torch.enable_grad():
            found = self._read(torch.zeros(1, 3, *[SAMPLE * self.clip.patch] * 2, device=self.clip.device))
            named = dict(self.visual.named_parameters())
            # A picture's embedding is of no account to words that do not look at it.
            joint = [found.dense] if config.prompts == "learned" else [found.dense, found.pooled]
            parts = [*found.levels, *(part for part in joint if part is not None)]
            learned = reached(torch.stack([part.sum() for part in parts]).sum(), named)
        self.visual.train(training)
        for name in named.keys() - learned.keys():
            named[name].requires_grad_(False)
        return [level.shape[1] for level in found.levels]

    def forward(self, images: Images) -> Reading:
        """Return the four maps, finest first, and where words are wanted the embedding of the picture and its map."""
        found = self._read(images)
        return found._replace(levels=list(self.spread(found.levels)))

    def _read(self, images: Images) -> Reading:
        if self._language:
            return self.clip.read(images, self.blocks, route=self._route)
        return Reading(self.clip.features(images, self.blocks), None, None)
