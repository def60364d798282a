"""How regions are read off a picture: from the dense map, or each through the last stage of a CLIP ResNet."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from closeup._types import Embeddings, Images
from closeup.errors import InputError
from closeup.models.blocks import reached
from closeup.models.clip import Clip
from closeup.models.resnet import ResNetTower
from closeup.models.routes import Route
from closeup.models.windows import Window
from closeup.regions import pool_boxes, pool_masks

FeatureMaps = Float[Tensor, "batch channels rows cols"]
Fractions = Float[Tensor, "_ 4"]
"""Boxes xyxy in fractions of the canvas."""


class RegionFeatures(ABC):
    """Features of whole pictures, and regions read off them; gradients go through both."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip

    @abstractmethod
    def features(self, images: Images) -> FeatureMaps:
        """Return the features of pictures, one pass for any number of regions."""

    @abstractmethod
    def boxes(self, features: FeatureMaps, images: Images, boxes: Sequence[Fractions]) -> list[Float[Tensor, "_ dim"]]:
        """Return the embeddings of boxes, one entry a picture."""

    @abstractmethod
    def masks(
        self, features: FeatureMaps, masks: Float[Tensor, "regions _ _"], counts: Sequence[int]
    ) -> list[Float[Tensor, "_ dim"]]:
        """Return the embeddings of masks, weights of cells, ``counts`` of them in each picture."""

    def regions(self, features: FeatureMaps, images: Images, batch: Mapping[str, Tensor]) -> Embeddings:
        """Return the regions of a batch, in its order: ``boxes`` or ``masks``, ``owners`` the picture of each."""
        counts = per_picture(batch["owners"], len(images))
        if "masks" in batch:
            return torch.cat(self.masks(features, batch["masks"], counts))
        return torch.cat(self.boxes(features, images, torch.split(batch["boxes"], counts)))

    def moving(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
        """Let parameters of the tower learn, and return those of them that boxes depend on."""
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        images = torch.zeros(1, 3, *self.clip.image_size, device=self.clip.device)
        with torch.enable_grad():
            whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=self.clip.device)
            return reached(torch.cat(self.boxes(self.features(images), images, [whole])).sum(), parameters)


class MapFeatures(RegionFeatures):
    """Regions are means of the L2-normalised dense map: RoIAlign with one bin for boxes, weighted means for masks.

    Source: CLIPSelf (arXiv 2310.01403).
    """

    def __init__(self, clip: Clip, *, route: str | Route = "value", window: Window | None = None) -> None:
        super().__init__(clip)
        self._route, self._window = route, window

    def features(self, images: Images) -> FeatureMaps:
        """Return the dense maps."""
        return self.clip.encode_dense(images, route=self._route, window=self._window)

    def boxes(self, features: FeatureMaps, images: Images, boxes: Sequence[Fractions]) -> list[Float[Tensor, "_ dim"]]:
        """Return the boxes' means of the map."""
        with torch.autocast(features.device.type, enabled=False):
            return pool_boxes(features, _in_cells(images, boxes, self.clip.patch))

    def masks(
        self, features: FeatureMaps, masks: Float[Tensor, "regions _ _"], counts: Sequence[int]
    ) -> list[Float[Tensor, "_ dim"]]:
        """Return the masks' means of the map."""
        if masks.shape[1:] != features.shape[2:]:  # a drawn scale: cells are shared out by area
            masks = F.interpolate(masks[None], features.shape[2:], mode="area")[0]
        with torch.autocast(features.device.type, enabled=False):
            return pool_masks(features, torch.split(masks, list(counts)))


class StageFeatures(RegionFeatures):
    """Each box goes through the fourth stage and the attention pool by itself, as RegionCLIP does with ResNets.

    Source: RegionCLIP (arXiv 2112.09106), by ``ResNetTower.region_embeddings``.
    """

    def __init__(self, clip: Clip, tower: ResNetTower) -> None:
        super().__init__(clip)
        self._tower = tower

    def features(self, images: Images) -> FeatureMaps:
        """Return the output of the third stage."""
        return self.clip.features(images, [2])[0]

    def boxes(self, features: FeatureMaps, images: Images, boxes: Sequence[Fractions]) -> list[Float[Tensor, "_ dim"]]:
        """Return what the attention pool makes of each box."""
        found = self._tower.region_embeddings(features, _in_cells(images, boxes, self.clip.patch // 2))
        return [each.float() for each in found]

    def masks(
        self, features: FeatureMaps, masks: Float[Tensor, "regions _ _"], counts: Sequence[int]
    ) -> list[Float[Tensor, "_ dim"]]:
        """Raise InputError: the fourth stage reads boxes."""
        raise InputError("A CLIP ResNet reads boxes through its last stage, and no masks. Give boxes.")


def region_features(clip: Clip, *, route: str | Route = "value", window: Window | None = None) -> RegionFeatures:
    """Return how a tower reads regions as RegionCLIP has it: CLIP's ResNets by their last stage, others from the map.

    Route and window are for the map.
    """
    if isinstance(clip.tower, ResNetTower):
        return StageFeatures(clip, clip.tower)
    return MapFeatures(clip, route=route, window=window)


def per_picture(owners: Int[Tensor, " regions"], pictures: int) -> list[int]:
    """Return the number of regions of each picture."""
    counts: list[int] = torch.bincount(owners, minlength=pictures).tolist()
    return counts


def _in_cells(images: Images, boxes: Sequence[Fractions], patch: int) -> list[Float[Tensor, "_ 4"]]:
    height, width = images.shape[2:]
    return [each * (each.new_tensor([width, height] * 2) / patch) for each in boxes]
