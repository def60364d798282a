"""A proposer: boxes of whatever may be an object, and how likely each is one, on a frozen CLIP's own pyramid.

RegionCLIP's proposals come from a second network with a backbone of its own. Here the pyramid is made from a frozen
CLIP, so that little has to be learned and kept. It learns from the boxes of base classes without their names.

Source: Ren et al., Faster R-CNN (arXiv 1506.01497), as torchvision has it; RegionCLIP (arXiv 2112.09106) for its use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from closeup._types import Boxes, Images
from closeup.config import Config
from closeup.errors import ConfigError
from closeup.heads.backbone import ClipPyramid
from closeup.heads.proposals import listed, proposal_network, scored
from closeup.heads.trained import StandingHead, load_head
from closeup.models.clip import Clip
from closeup.models.region_features import per_picture

KINDS = {"rpn": ("config", "size")}
"""The kind of head, and what its card must say."""


@dataclass(frozen=True)
class RpnConfig(Config):
    """What a proposer is made of.

    Raises:
        ConfigError: a value outside its range.
    """

    blocks: tuple[int, ...] = ()
    """The four blocks that the pyramid is made of, 0-based; empty is every quarter of the tower."""
    channels: int = 256
    """Width of the feature pyramid."""
    proposals: int = 1000
    """Boxes of a picture, at most."""
    candidates: int = 2000
    """Anchors of each level that they are chosen from, in training; half of it afterwards."""

    def __post_init__(self) -> None:
        if self.blocks and len(self.blocks) != 4:
            raise ConfigError(f"`blocks` must name 4 blocks, or none, but got {self.blocks}.")
        for name in ("channels", "proposals", "candidates"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, but got {getattr(self, name)}.")


@dataclass(frozen=True, slots=True, eq=False)
class Proposals:
    """Boxes of one picture, best first: xyxy in pixels, and the logit of each one's objectness."""

    boxes: Boxes
    logits: Float[Tensor, " count"]


class Rpn(nn.Module):
    """The network; the CLIP's image tower is no part of the module.

    Raises:
        ModelError: the tower has fewer than four blocks.
    """

    kind: ClassVar[str] = "rpn"

    def __init__(self, clip: Clip, config: RpnConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or RpnConfig()
        self.pyramid = ClipPyramid(clip, config.channels, blocks=config.blocks)
        self.network = proposal_network(
            config.channels, self.pyramid.strides, proposals=config.proposals, candidates=config.candidates
        )

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss of a batch as ``FVit.forward`` has it, and its parts; labels are not looked at."""
        images = batch["images"]
        levels, _ = self.pyramid(images)
        counts = per_picture(batch["owners"], len(images))
        targets = [{"boxes": boxes} for boxes in torch.split(batch["boxes"], counts)]
        _, given = self.network(listed(images, batch["sizes"]), levels, targets)
        losses = {"objectness": given["loss_objectness"], "proposal_boxes": given["loss_rpn_box_reg"]}
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    @torch.no_grad()
    def propose(self, images: Images, sizes: Int[Tensor, "batch 2"]) -> list[Proposals]:
        """Return the boxes of each picture, in pixels of its canvas; call in eval mode."""
        levels, _ = self.pyramid(images)
        found = scored(self.network, listed(images, sizes), levels)
        return [Proposals(boxes, logits) for boxes, logits in found]


@dataclass(frozen=True, slots=True, eq=False)
class Proposer(StandingHead):
    """A trained proposer; it knows no words."""

    head: Rpn


def new_proposer(
    clip: Clip,
    words: Sequence[str],
    novel: Sequence[bool],
    *,
    templates: str,
    size: int,
    config: Mapping[str, Any],
) -> Proposer:
    """Return an untrained proposer; words, and the sentences around them, are for detectors and not used."""
    return Proposer(Rpn(clip, RpnConfig().replace(**config)).to(clip.device), clip, size, "untrained")


def load_proposer(
    name: str | Path, *, device: str | torch.device = "auto", precision: str = "auto", clip: Clip | None = None
) -> Proposer:
    """Load a proposer in eval mode, with the CLIP that its card names, or the same one given as ``clip``.

    ``name`` is a folder, or the name of a proposer that ships.

    Raises:
        ModelError: there is no proposer, or the CLIP is another one than it was trained on.
    """
    return load_head(name, KINDS, _of_card, device=device, precision=precision, clip=clip)


def _of_card(clip: Clip, card: Mapping[str, Any]) -> Proposer:
    return new_proposer(clip, (), (), templates="simple", size=card["size"], config=card["config"])
