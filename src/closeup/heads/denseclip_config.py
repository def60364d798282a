"""The settings of DenseCLIP: what of the image learns, how words are prompted, where scores enter, what is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from closeup.config import Config
from closeup.errors import ConfigError

Prompts: TypeAlias = Literal["learned", "post", "pre", "instance"]
"""How words know of the picture: not at all; moved by a context decoder after the text tower; by contexts that a
decoder makes of the picture before it; or by the picture's embedding as one more context."""


@dataclass(frozen=True)
class DenseClipConfig(Config):
    """What a DenseCLIP is made of; defaults are those of its segmentation with CLIP's ResNets.

    Raises:
        ConfigError: a value outside its range.

    Source: ``raoyongming/DenseCLIP`` ``segmentation/configs``, ``segmentation/denseclip``.
    """

    language: bool = True
    """Whether there is a score map at all; without one it is a plain pyramid on the tower."""
    prompts: Prompts = "post"
    contexts: int = 8
    """Learned tokens before a word's name; 0 for the sentences of templates, which do not learn."""
    context_std: float = 1.0
    """Deviation of their first values, which are cut at twice as much; the official ones, far from those of words."""
    gamma: float = 1e-4
    """What the context decoder's answer is multiplied by at first, in each dimension."""
    decoder_width: int = 256
    decoder_heads: int = 4
    decoder_layers: int = 3
    decoder_dropout: float = 0.1
    temperature: float = 0.07
    """What scores are divided by in the auxiliary loss."""
    scores: Literal["cosine", "divided"] = "cosine"
    """How scores join the features: as cosines (segmentation), or divided by the temperature (detection)."""
    auxiliary: float = 0.4
    """Weight of the loss on the score map itself; 0 for none."""
    average: Literal["valid", "all"] = "valid"
    """Whether a loss is the mean over labelled pixels, or is divided by all of them, as in the official code."""
    blocks: tuple[int, ...] = ()
    """The four blocks of a ViT whose maps make the pyramid, 0-based; empty is 3, 5, 7, 11 of 12."""
    route: str = "attention"
    """How the last block is replaced: not at all; "value" for a CLIP that CLIPSelf adapted."""
    class_embedding: Literal["single", "double"] = "single"
    """How often a ViT's class embedding is counted; the official code adds it twice, which patches feel too."""
    channels: int = 256
    """Channels of the feature pyramid."""
    hidden: int = 256
    """Channels of the Semantic FPN."""
    dropout: float = 0.1
    backbone: str = ""
    """A backbone of timm's in the place of the CLIP's image tower, "resnet50" for example; its attention pool starts
    from nothing."""
    backbone_weights: str = ""
    """ImageNet's weights of that backbone: a file under timm's names, "timm" to fetch them; empty is random."""
    backbone_pace: float = 0.1
    """What the learning rate is multiplied by for the image tower."""

    def __post_init__(self) -> None:
        ranges: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
            (("decoder_width", "decoder_heads", "decoder_layers", "channels", "hidden"), _from_one, "at least 1"),
            (("temperature", "backbone_pace", "context_std"), _positive, "positive"),
            (("contexts", "auxiliary"), _not_negative, "0 or more"),
            (("dropout", "decoder_dropout"), _a_share, "from 0 to below 1"),
        )
        for names, fits, said in ranges:
            for name in names:
                if not fits(getattr(self, name)):
                    raise ConfigError(f"`{name}` must be {said}, but got {getattr(self, name)}.")
        if self.decoder_width % self.decoder_heads:
            raise ConfigError(f"`decoder_heads` ({self.decoder_heads}) must divide {self.decoder_width}.")
        if self.contexts == 0 and self.prompts in ("pre", "instance"):
            raise ConfigError(f"`contexts` is 0, and {self.prompts!r} prompts are contexts. Give at least 1.")
        if self.blocks and (len(self.blocks) != 4 or list(self.blocks) != sorted(self.blocks)):
            raise ConfigError(f"`blocks` must name 4 blocks, the first ones first, or none, but got {self.blocks}.")
        if self.backbone_weights and not self.backbone:
            raise ConfigError(f"`backbone_weights` is {self.backbone_weights!r}, and no `backbone` is named for them.")


def _from_one(value: float) -> bool:
    return value >= 1


def _positive(value: float) -> bool:
    return value > 0


def _not_negative(value: float) -> bool:
    return value >= 0


def _a_share(value: float) -> bool:
    return 0 <= value < 1
