"""Matchers that make new embeddings of both: the cosine of what one side makes of regions and one of texts.

    e = image side (region)        identity, a linear layer, or two layers, each followed by tanh
    t = text side (text)           likewise
    score = sigmoid(cos(e, t))     plain for the cosine matcher and those that begin as it

Source: FG-CLIP (Bianchi et al., ``lorebianchi98/FG-CLIP`` ``src/model.py``, class MLPs), its linear and MLP matchers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from closeup.match.cosine import check_widths
from closeup.match.matcher import SLOPE, Inputs, Matcher, Normalisation, Seen

TINY = 1e-12
"""The length below which torch's ``normalize`` divides by no less."""


class Residual(nn.Module):
    """Adds what layers make of an embedding to it; nothing at first, for the last layer begins as zeros.

    ``dim`` is the embedding's width; layers see what stands behind it too.

    Not in the paper: so a matcher begins as the cosine, and has only to learn where it must differ.
    """

    def __init__(self, *layers: nn.Module, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.added = nn.Sequential(*layers)
        last = layers[-1]
        for parameter in last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, embeddings: Float[Tensor, "*count wide"]) -> Float[Tensor, "*count dim"]:
        """Return embeddings with what is added to them."""
        added: Tensor = self.added(embeddings)
        return embeddings[..., : self.dim] + added


class ProjectionMatcher(Matcher):
    """Compares by the cosine of two sides' outputs, modules from ``dim`` to one common width; ``nn.Identity`` is one.

    Args:
        kind: As in ``Matcher``.
        dim: As in ``Matcher``.
        image: What is made of regions.
        text: What is made of texts.
        squashed: Whether a sigmoid follows the cosine, so that scores lie between 0.27 and 0.73.
        inputs: As in ``Matcher``.
        scale: As in ``Matcher``.
        settings: As in ``Matcher``.
        seen: As in ``Matcher``; ``image`` is then given what it makes of regions.
    """

    def __init__(
        self,
        kind: str,
        dim: int | None,
        image: nn.Module,
        text: nn.Module,
        *,
        squashed: bool = True,
        inputs: Inputs = "unit",
        scale: float | None = None,
        settings: Mapping[str, int] | None = None,
        seen: Seen | None = None,
    ) -> None:
        super().__init__(kind, dim, inputs=inputs, scale=scale, settings=settings, seen=seen)
        self.image = image
        self.text = text
        self.squashed = squashed
        self.slope = SLOPE if squashed else 1.0

    def embed_regions(self, regions: Float[Tensor, "regions dim"]) -> Float[Tensor, "regions out"]:
        """Return regions in the matcher's own space, of length one: a cosine there is what the matcher scores by."""
        return F.normalize(self.image(self.taken_regions(regions)), dim=1)

    def embed_texts(self, texts: Float[Tensor, "texts dim"]) -> Float[Tensor, "texts out"]:
        """Return texts in the matcher's own space, of length one."""
        return F.normalize(self.text(self.taken(texts)), dim=1)

    def forward(
        self, regions: Float[Tensor, "regions dim"], texts: Float[Tensor, "texts text_dim"]
    ) -> Float[Tensor, "regions texts"]:
        """Return the score of every region with every text: a cosine, -1 to 1, or its sigmoid."""
        self._check(regions, texts)
        return self._finished(self.embed_regions(regions) @ self.embed_texts(texts).T)

    def of_own(
        self,
        regions: Float[Tensor, "regions dim"],
        captions: Float[Tensor, "regions captions text_dim"],
        normalisation: Normalisation = "features",
    ) -> Float[Tensor, "regions captions"]:
        """Return the score of every region with captions of its own."""
        self._check(regions, captions)
        texts = self.text(self.taken(captions))
        if normalisation == "captions":
            texts = F.normalize(texts, dim=1)
        products = torch.einsum("rd,rcd->rc", self.embed_regions(regions), texts)
        if normalisation == "features":
            # To divide products and not rows saves a quarter of a training step.
            products = products / texts.norm(dim=2).clamp(min=TINY)
        return self._finished(products)

    def _check(self, regions: Tensor, texts: Tensor) -> None:
        if self.seen is None:
            check_widths(regions.shape[1], texts.shape[-1])

    def _finished(self, cosines: Tensor) -> Tensor:
        return cosines.sigmoid() if self.squashed else cosines


class OwnPart(nn.Module):
    """Leaves details out: the embedding before them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, regions: Float[Tensor, "*count wide"]) -> Float[Tensor, "*count dim"]:
        """Return the first ``dim`` numbers."""
        return regions[..., : self.dim]


def identity_side(wide: int, hidden: int, dim: int) -> nn.Module:
    """Return a side that leaves embeddings as they are."""
    return nn.Identity()


def linear_side(wide: int, hidden: int, dim: int) -> nn.Module:
    """Return a side of one linear layer."""
    return nn.Sequential(nn.Linear(wide, dim))


def mlp_side(wide: int, hidden: int, dim: int) -> nn.Module:
    """Return a side of two linear layers, ``hidden`` wide between them; tanh follows the last one too."""
    return nn.Sequential(nn.Linear(wide, hidden), nn.Tanh(), nn.Linear(hidden, dim), nn.Tanh())


def residual_side(wide: int, hidden: int, dim: int) -> nn.Module:
    """Return a side that begins as the identity and learns what to add to it by a linear layer."""
    return Residual(nn.Linear(wide, dim), dim=dim)


def residual_mlp_side(wide: int, hidden: int, dim: int) -> nn.Module:
    """Return a side that begins as the identity and learns what to add to it by two layers, ``hidden`` between them."""
    return Residual(nn.Linear(wide, hidden), nn.ReLU(), nn.Linear(hidden, dim), dim=dim)
