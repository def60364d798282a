"""A matcher: the function that scores embeddings of regions against embeddings of texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

Normalisation = Literal["features", "captions"]
"""Along what a caption's embedding has length one where pictures meet captions of their own: over its features, as in
every other place, or over the captions of its picture, as in the official training code (facts of FG-CLIP, bug 1)."""


class Matcher(nn.Module, ABC):
    """Scores any number of regions against any number of texts, without a loop over either.

    ``dim`` is the width of the embeddings, which come raw from CLIP's towers. ``scale`` is what raw scores are
    multiplied by before a softmax over words makes probabilities of them.
    """

    kind: ClassVar[str]
    dim: int | None
    """None: any."""
    scale: float | None = None
    """None: CLIP's own."""

    @abstractmethod
    def forward(
        self, regions: Float[Tensor, "regions dim"], texts: Float[Tensor, "texts text_dim"]
    ) -> Float[Tensor, "regions texts"]:
        """Return the raw score of every region with every text."""

    @abstractmethod
    def of_own(
        self,
        regions: Float[Tensor, "regions dim"],
        captions: Float[Tensor, "regions captions text_dim"],
        normalisation: Normalisation = "features",
    ) -> Float[Tensor, "regions captions"]:
        """Return the raw score of every region with captions of its own."""
