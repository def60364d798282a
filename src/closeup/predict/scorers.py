"""What makes a segmentation: a scorer says how much each word fits at cells that cover a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import PIL.Image

from closeup.data.record import Record
from closeup.match import Matcher
from closeup.models.clip import Clip
from closeup.models.preprocess import Size
from closeup.models.routes import Route
from closeup.predict.cells import score_cells
from closeup.predict.matching import check_matcher, scale_of, seen_by, told_of
from closeup.predict.pixels import BestWords, Cells
from closeup.predict.provenance import Provenance, describe
from closeup.text import TextBank

Tell: TypeAlias = Callable[[int, int], object]
"""Told how much of the work on one picture is done, and of how much."""


class Scores(NamedTuple):
    """Every word's score at cells that cover a picture.

    Where a scorer settles the best word of each pixel itself, ``best`` has it, and cells are for drawing alone.
    ``canvas`` is the height and width in pixels that the model saw. ``scale`` is what scores are multiplied by before
    a softmax over words makes probabilities of them; None where they are what they are: from about 0 to 1 if
    ``bounded``.
    """

    cells: Cells
    canvas: Size
    scale: float | None
    best: BestWords | None = None
    bounded: bool = True


@runtime_checkable
class Scorer(Protocol):
    """One way to score words everywhere in a picture.

    ``clip`` is the model whose text tower makes the banks, unless the scorer makes them itself (``banks.OwnWords``).
    """

    @property
    def clip(self) -> Clip: ...  # noqa: D102

    def score(
        self, record: Record, picture: PIL.Image.Image, bank: TextBank, on_progress: Tell | None = None
    ) -> Scores:
        """Return the scores of a record, whose picture is given, upright and in RGB."""
        ...

    def describe(self, bank: TextBank, canvas: Size, **settings: str | float | None) -> Provenance:
        """Return what makes a result, with further settings."""
        ...


@dataclass(frozen=True, slots=True)
class DenseScorer:
    """Raw scores of words at the cells of the dense map, of the whole picture or of windows over it.

    They are cosines, or a matcher's. Arguments as of ``segment``.

    Raises:
        InputError: a matcher of another model, or one that looks into regions of another encoder.
    """

    clip: Clip
    route: str | Route = "value"
    size: int | Size | None = None
    window: int | Size | None = None
    stride: int | Size | None = None
    batch: int = 8
    matcher: Matcher | None = None

    def __post_init__(self) -> None:
        check_matcher(self.matcher, self.clip)
        seen_by(self.matcher, self.clip, "dense")

    def score(
        self, record: Record, picture: PIL.Image.Image, bank: TextBank, on_progress: Tell | None = None
    ) -> Scores:
        """Return the scores of a picture.

        Raises:
            InputError: as ``score_cells``.
        """
        found = score_cells(
            self.clip,
            picture,
            bank,
            route=self.route,
            size=self.size,
            window=self.window,
            stride=self.stride,
            batch=self.batch,
            matcher=self.matcher,
        )
        return Scores(found.scores, found.canvas, scale_of(self.matcher, self.clip))

    def describe(self, bank: TextBank, canvas: Size, **settings: str | float | None) -> Provenance:
        """Return what makes a result."""
        return describe(
            self.clip,
            bank,
            region_encoder="dense",
            route=self.route,
            image_size=canvas,
            window=None if self.window is None else str(self.window),
            stride=None if self.stride is None else str(self.stride),
            **told_of(self.matcher),
            **settings,
        )
