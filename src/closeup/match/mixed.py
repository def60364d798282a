"""A share of one matcher's score in another's: the simplest way to keep what each is good at."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from closeup.errors import InputError
from closeup.match.matcher import Matcher, Normalisation


class MixedMatcher(Matcher):
    """Scores ``(1 - share) * coarse + share * fine``, of two matchers of the same embeddings, each over its slope.

    Raises:
        InputError: the share lies outside 0 to 1, or the two want different embeddings.
    """

    def __init__(self, coarse: Matcher, fine: Matcher, share: float) -> None:
        if not 0 <= share <= 1:
            raise InputError(f"share is {share}: give the fine matcher's part in a score, from 0 to 1.")
        if coarse.inputs != fine.inputs or len({coarse.dim, fine.dim} - {None}) > 1:
            raise InputError(f"{coarse.name!r} and {fine.name!r} want different embeddings, so they cannot be mixed.")
        if coarse.seen is not None or fine.seen is not None:
            raise InputError("A matcher that sees more than embeddings cannot be mixed with another.")
        super().__init__("mixed", fine.dim or coarse.dim, inputs=fine.inputs, settings={"share": share})
        self.name = f"{share:g} of {fine.name}"
        self.coarse, self.fine, self.share = coarse, fine, share

    def forward(
        self, regions: Float[Tensor, "regions dim"], texts: Float[Tensor, "texts text_dim"]
    ) -> Float[Tensor, "regions texts"]:
        """Return the mixed score of every region with every text."""
        coarse: Tensor = self.coarse(regions, texts)
        fine: Tensor = self.fine(regions, texts)
        return self._mixed(coarse, fine)

    def of_own(
        self,
        regions: Float[Tensor, "regions dim"],
        captions: Float[Tensor, "regions captions text_dim"],
        normalisation: Normalisation = "features",
    ) -> Float[Tensor, "regions captions"]:
        """Return the mixed score of every region with captions of its own."""
        coarse, fine = (each.of_own(regions, captions, normalisation) for each in (self.coarse, self.fine))
        return self._mixed(coarse, fine)

    def _mixed(self, coarse: Tensor, fine: Tensor) -> Tensor:
        return (1 - self.share) * coarse / self.coarse.slope + self.share * fine / self.fine.slope
