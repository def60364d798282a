"""Where an image is like a word: one map of scores per word."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from closeup._types import Embeddings, ImageLike, Labels
from closeup.data.images import open_image
from closeup.errors import InputError, suggest
from closeup.match import Bank, Matcher
from closeup.models.clip import Clip
from closeup.models.preprocess import Size
from closeup.models.routes import Route
from closeup.predict.cells import score_cells
from closeup.predict.matching import told_of, wants_unit
from closeup.predict.pixels import Cells
from closeup.predict.provenance import describe
from closeup.predict.results import HeatmapResult
from closeup.predict.words import Words, as_bank
from closeup.text import Templates, TextBank

CONTRASTS = ("none", "others", "empty")
"""What is taken off a raw score: nothing, the mean over the other words, or the score of an empty prompt.

CLIP's cosines of one image lie close together; a contrast takes off what they share.
"""


def heatmap(
    clip: Clip,
    image: ImageLike,
    words: Words,
    *,
    contrast: str = "none",
    route: str | Route = "value",
    size: int | Size | None = None,
    window: int | Size | None = None,
    stride: int | Size | None = None,
    templates: str | Templates | None = None,
    matcher: Matcher | None = None,
) -> HeatmapResult:
    """Return one map of scores per word; ``contrast`` says what is taken off, other arguments as in ``segment``.

    Raises:
        InputError: for an unknown contrast, the contrast "others" with a single word, and as ``segment`` does.
    """
    if contrast not in CONTRASTS:
        raise InputError(f"Unknown contrast {contrast!r}. {suggest(str(contrast), CONTRASTS)}")
    bank = as_bank(clip, words, templates, matcher)
    if contrast == "others" and len(bank) == 1:
        raise InputError(f"{bank.names[0]!r} is the only word: the contrast 'others' needs two. Use 'empty' or 'none'.")
    picture = open_image(image)
    matched: Bank = _with_empty_prompt(clip, bank, wants_unit(matcher)) if contrast == "empty" else bank
    cells, canvas = score_cells(
        clip, picture, matched, route=route, size=size, window=window, stride=stride, matcher=matcher
    )
    return HeatmapResult(
        image=image,
        size=(picture.height, picture.width),
        cells=contrasted(cells, contrast).cpu(),
        names=bank.names,
        provenance=describe(
            clip,
            bank,
            region_encoder="dense",
            route=route,
            image_size=canvas,
            contrast=contrast,
            window=None if window is None else str(window),
            stride=None if stride is None else str(stride),
            **told_of(matcher),
        ),
    )


def contrasted(cells: Cells, contrast: str) -> Float[Tensor, "contrasted rows cols"]:
    """Take off what ``contrast`` says; for "empty" the last plane is the empty prompt's, and goes."""
    if contrast == "others":
        return (cells - cells.mean(dim=0)) * (len(cells) / (len(cells) - 1))
    return cells[:-1] - cells[-1] if contrast == "empty" else cells


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The rows of a bank and one more label."""

    embeddings: Embeddings
    owner: Labels
    words: int

    def __len__(self) -> int:
        return self.words


def _with_empty_prompt(clip: Clip, bank: TextBank, unit: bool) -> _Rows:
    empty = clip.encode_text([""], normalize=unit).to(bank.embeddings)
    owner = torch.cat([bank.owner, bank.owner.new_tensor([len(bank)])])
    return _Rows(torch.cat([bank.embeddings, empty]), owner, len(bank) + 1)
