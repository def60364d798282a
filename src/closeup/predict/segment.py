"""A word for every pixel: words are scored at the cells of a picture, brought to the original image, the best taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from closeup._types import IGNORE, ImageLike
from closeup.data.images import open_image
from closeup.data.record import Record
from closeup.errors import InputError
from closeup.match import Matcher
from closeup.models.clip import Clip
from closeup.models.preprocess import Size
from closeup.models.routes import Route
from closeup.predict.banks import bank_for
from closeup.predict.image_sources import Skipped, opened
from closeup.predict.pixels import best_words
from closeup.predict.results import SegmentationResult
from closeup.predict.scorers import DenseScorer, Scorer, Tell
from closeup.predict.words import Words
from closeup.text import Templates


def segment(
    clip: Clip,
    image: ImageLike,
    words: Words,
    *,
    route: str | Route = "value",
    size: int | Size | None = None,
    window: int | Size | None = None,
    stride: int | Size | None = None,
    background: float | str | None = None,
    upsample: str = "bilinear",
    templates: str | Templates | None = None,
    batch: int = 8,
    matcher: Matcher | None = None,
) -> SegmentationResult:
    """Return the best word for every pixel of an image, without training; ``segment_many`` does many images.

    The raw scores of all words at the cells of the dense map are brought to the original pixels, and only
    then is the best word taken.

    Args:
        clip: The model.
        image: A path, a PIL picture or a uint8 RGB array.
        words: A vocabulary, names, or a text bank made with this model.
        route: How the last block is replaced.
        size: Longest side that the image is brought to, in pixels (None: the native size).
        window: Side, or height and width, of a sliding window over the resized image (None: all at once).
        stride: From one window to the next (None: half a window); scores are averaged where windows overlap.
        background: A number, 0 to 1: pixels whose best word has a lower softmax probability are background.
            A word: pixels where it is best are background; it joins the vocabulary where it is not in it.
        upsample: How scores go from cells to pixels.
        templates: Name of a template set or the set itself (None: "simple", or those of the bank).
        batch: Windows that are encoded at a time.
        matcher: What scores words at cells (None: the cosine).

    Raises:
        InputError: for settings outside their range, or a background word that a given bank does not hold; for a
            matcher of another width, or of raw embeddings where the bank's are not.

    Source: MaskCLIP (arXiv 2112.01071) with the value route, without its refinement (``MaskClipScorer`` has it);
    windows as in mmsegmentation's ``slide_inference``, averaged on cells rather than on pixels.
    """
    scorer = DenseScorer(clip, route, size, window, stride, batch, matcher)
    return segment_by(scorer, image, words, background=background, upsample=upsample, templates=templates)


def segment_by(
    scorer: Scorer,
    image: ImageLike,
    words: Words | None = None,
    *,
    background: float | str | None = None,
    upsample: str = "bilinear",
    templates: str | Templates | None = None,
    on_progress: Tell | None = None,
) -> SegmentationResult:
    """Return the best word for every pixel of an image by any scorer; arguments as in ``segment``.

    ``words`` may be left out where the scorer has a closed list of its own (``banks.OwnWords``).

    Raises:
        InputError: as ``segment``, and as the scorer does.
    """
    bank = bank_for(scorer, words, templates, background=background)
    picture = open_image(image)
    named = Path(image).stem if isinstance(image, str | Path) else "picture"
    found = scorer.score(Record(named, image, None), picture, bank, on_progress)
    least = background if isinstance(background, float | int) else None
    if least is not None and not found.bounded:
        raise InputError(
            f"background is {background}, and smoothed scores are no probabilities: give a word for it, or leave "
            "smoothing out."
        )
    scale = None if least is None else found.scale
    best = found.best or best_words(found.cells, (picture.height, picture.width), mode=upsample, scale=scale)
    label_map = best.labels
    if isinstance(background, str):
        label_map[label_map == bank.vocabulary.index(background)] = IGNORE
    elif least is not None:
        label_map[(best.scores if best.probabilities is None else best.probabilities) < least] = IGNORE
    return SegmentationResult(
        image=image,
        size=(picture.height, picture.width),
        label_map=label_map,
        scores=best.scores,
        cells=found.cells.cpu(),
        names=bank.names,
        provenance=scorer.describe(bank, found.canvas, background=background, upsample=upsample),
    )


def segment_many(
    clip: Clip,
    images: Iterable[ImageLike],
    words: Words,
    *,
    route: str | Route = "value",
    size: int | Size | None = None,
    window: int | Size | None = None,
    stride: int | Size | None = None,
    background: float | str | None = None,
    upsample: str = "bilinear",
    templates: str | Templates | None = None,
    batch: int = 8,
    matcher: Matcher | None = None,
    skipped: list[Skipped] | None = None,
) -> Iterator[SegmentationResult]:
    """Yield one result per image, in order, made when it is asked for; other arguments as in ``segment``.

    An image that cannot be opened is noted in ``skipped`` and passed over; without such a list its ImageError
    is raised.

    Raises:
        InputError: as ``segment`` does.
    """
    scorer = DenseScorer(clip, route, size, window, stride, batch, matcher)
    bank = bank_for(scorer, words, templates, background=background)
    return (
        replace(segment_by(scorer, item.picture, bank, background=background, upsample=upsample), image=item.image)
        for item in opened(images, skipped=skipped)
    )
