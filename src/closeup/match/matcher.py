"""A matcher: the function that scores embeddings of regions against embeddings of texts."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from closeup.errors import InputError, suggest
from closeup.models.clip import digest

Normalisation = Literal["features", "captions"]
"""Along what a caption's embedding has length one where pictures meet captions of their own: over its features, as in
every other place, or over the captions of its picture, as in the official training code of FG-CLIP
(``lorebianchi98/FG-CLIP`` ``src/model.py``), whose scores in training are therefore not those in evaluation."""

Inputs = Literal["unit", "raw"]
"""What a matcher was made for: embeddings of length one, or as CLIP's towers give them. A bias, or attention, makes the
length matter."""


SLOPE = 0.25
"""Of the sigmoid, where it is steepest."""

LEAST_SPREAD = 1e-3
"""A detail that hardly ever changes tells nothing, and is not blown up: of its size, or of 1 where it is smaller. In
the half precision of tables it may be off by half as much."""

SEEING = ("crop", "dense")
"""Region encoders that give details to learn from."""


class Seen(nn.Module):
    """What a matcher sees of a region behind its embedding: details of a model's levels (``models.levels``).

        z -> [ sqrt(dim) e / |e| ;  (details - usual) / spread ]

    so that every number is about as large as the others, whatever the tower makes of its inside.

    Args:
        levels: The blocks whose maps they are of.
        details: How many numbers.
        images: Fingerprint of the model that is looked into: inside, another one is no substitute. None: not known.
        how: The region encoder that gives them, one of ``SEEING``.

    Raises:
        InputError: no level, one twice or none that counts from the start, no number behind embeddings, or an unknown
            encoder.
    """

    usual: Float[Tensor, " details"]
    spread: Float[Tensor, " details"]

    def __init__(self, levels: Sequence[int], details: int, *, images: str | None = None, how: str = "crop") -> None:
        super().__init__()
        if not levels or len(set(levels)) < len(levels) or not all(_is_count(level, 0) for level in levels):
            raise InputError(f"levels is {levels!r}: name one block or more by their numbers from 0, each once.")
        if not _is_count(details, 1):
            raise InputError(f"details is {details!r}: give how many numbers stand behind an embedding, 1 or more.")
        if how not in SEEING:
            raise InputError(f"Regions by {how!r} have no details to learn from. {suggest(str(how), SEEING)}")
        self.levels, self.details, self.images, self.how = tuple(levels), details, images, how
        self.register_buffer("usual", torch.zeros(details))
        self.register_buffer("spread", torch.ones(details))

    def learn(self, mean: Float[Tensor, " details"], deviation: Float[Tensor, " details"]) -> None:
        """Take over the mean and deviation that details usually have."""
        self.usual.copy_(mean)
        self.spread.copy_(deviation.maximum(LEAST_SPREAD * mean.abs().clamp(min=1)))

    def forward(self, regions: Float[Tensor, "regions dim"]) -> Float[Tensor, "regions dim"]:
        """Return embeddings and details on one footing."""
        own, details = regions.tensor_split([regions.shape[1] - self.details], dim=1)
        return torch.cat([math.sqrt(own.shape[1]) * F.normalize(own, dim=1), (details - self.usual) / self.spread], 1)


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


class Matcher(nn.Module, ABC):
    """Scores any number of regions against any number of texts, without a loop over either.

    A raw score is the affair of one region and one text: no other has a part in it. With ``inputs`` "unit" embeddings
    of any length will do, since they are brought to length one first; with "raw" they must come as CLIP's towers give
    them (``normalize=False``; ``mean="mean-of-raw"`` for a text bank).

    Attributes:
        kind: The name of the function, as ``new_matcher`` knows it.
        dim: Width of the embeddings; None: any.
        inputs: The length that embeddings have.
        scale: What raw scores are multiplied by before a softmax over words makes probabilities of them; None: CLIP's
            own.
        slope: How much a raw score rises with what it is a sigmoid of, at its steepest; 1 where it is none.
        settings: What ``new_matcher`` must be told besides these to make another like it.
        texts: Fingerprint of the text tower whose embeddings it learned from; None where that is not known.
        seen: What it sees of regions besides their embeddings; None: nothing.
        name: Where it was loaded from; its kind where it was not.
    """

    def __init__(
        self,
        kind: str,
        dim: int | None,
        *,
        inputs: Inputs = "unit",
        scale: float | None = None,
        settings: Mapping[str, float] | None = None,
        seen: Seen | None = None,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.dim = dim
        self.inputs: Inputs = inputs
        self.scale = scale
        self.slope = 1.0
        self.texts: str | None = None
        self.settings = dict(settings or {})
        self.name = kind
        self.seen = seen

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights and of everything else that scores depend on."""
        told = (self.kind, self.inputs, self.scale, sorted(self.settings.items()))
        return digest(self.state_dict(), told if self.seen is None else (*told, self.seen.levels))

    @abstractmethod
    def forward(
        self, regions: Float[Tensor, "regions dim"], texts: Float[Tensor, "texts text_dim"]
    ) -> Float[Tensor, "regions texts"]:
        """Return the raw score of every region with every text; InputError for embeddings of another width."""

    @abstractmethod
    def of_own(
        self,
        regions: Float[Tensor, "regions dim"],
        captions: Float[Tensor, "regions captions text_dim"],
        normalisation: Normalisation = "features",
    ) -> Float[Tensor, "regions captions"]:
        """Return the raw score of every region with captions of its own; InputError as ``forward``."""

    def like(self, other: Tensor) -> Tensor:
        """Return a tensor of the device and type that the matcher computes in: one of its own, or ``other``."""
        return next(chain(self.parameters(), self.buffers()), other)

    def taken(self, embeddings: Float[Tensor, "*count dim"]) -> Float[Tensor, "*count dim"]:
        """Return embeddings as the matcher takes them; InputError for another width."""
        if self.dim is not None and embeddings.shape[-1] != self.dim:
            raise InputError(
                f"The matcher {self.name!r} compares embeddings of {self.dim} dimensions, and these have "
                f"{embeddings.shape[-1]}. Give those of the CLIP that it was trained on."
            )
        return F.normalize(embeddings, dim=-1) if self.inputs == "unit" else embeddings

    def taken_regions(self, regions: Float[Tensor, "regions dim"]) -> Float[Tensor, "regions dim"]:
        """Return regions as the matcher takes them, details and all; InputError for another width."""
        if self.seen is None or self.dim is None:
            return self.taken(regions)
        if regions.shape[1] != self.dim + self.seen.details:
            raise InputError(
                f"The matcher {self.name!r} reads {self.seen.details} details behind embeddings of {self.dim} "
                f"dimensions, and these are {regions.shape[1]} wide. Embed regions with models.with_levels(clip, "
                f"{self.seen.levels})."
            )
        seen: Tensor = self.seen(regions)
        return seen
