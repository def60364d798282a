"""What a detector of any words read off boxes that may be objects, so that it can be asked for many vocabularies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from closeup._types import Embeddings, Labels


class Candidates(Protocol):
    """Boxes that may be objects, before any word: one look at the pictures serves any number of vocabularies.

    ``boxes`` are those of each picture, in pixels of the canvas and not yet cut to the picture.
    """

    @property
    def boxes(self) -> Sequence[Float[Tensor, "_ 4"]]:
        """The boxes of each picture."""
        ...

    def scores(
        self, words: Embeddings, novel: Sequence[bool], owner: Labels | None = None
    ) -> list[Float[Tensor, "_ words"]]:
        """Return the score of every word for every box of each picture; nothing is thinned out.

        ``words`` has the background last, ``novel`` a mark for each of the others. With an ``owner`` rows are synonyms,
        and a word's logit is that of its best.
        """
        ...
