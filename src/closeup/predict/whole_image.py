"""What CLIP was made for: zero-shot classification and image-text retrieval of whole images, over any reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from closeup._types import IGNORE, Embeddings, Images, Labels
from closeup.data.prefetch import prefetched
from closeup.data.record import Reader, Record
from closeup.errors import DataError, InputError
from closeup.evaluate import Recognition, RegionRecognition, Retrieval, retrieval_recall
from closeup.evaluate.retrieval import mean_recall
from closeup.match import Matcher, score
from closeup.match.scores import pair_scores
from closeup.models.clip import Clip
from closeup.models.levels import ClipWithLevels
from closeup.predict.matching import check_matcher, looked_at
from closeup.predict.words import Words, as_bank
from closeup.text import Templates

Progress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True, eq=False)
class WholeImages:
    """Every image of a reader as one embedding, with its label (IGNORE for none) and its captions, in order.

    ``levels`` are those whose details stand behind the embeddings (``models.levels``).
    """

    embeddings: Embeddings
    labels: Labels
    captions: tuple[tuple[str, ...], ...]
    levels: tuple[int, ...] = ()


@torch.no_grad()
def encode_whole(
    clip: Clip,
    reader: Reader,
    *,
    limit: int | None = None,
    batch: int = 64,
    workers: int = 2,
    normalize: bool = True,
    on_progress: Progress | None = None,
) -> WholeImages:
    """Encode the first ``limit`` images whole, at the model's own size and by its own preprocessing.

    Without ``normalize`` embeddings are as the tower gives them, as some matchers want them. A record's label is the
    image's own where it has exactly one, and neither boxes nor masks.
    """
    count = len(reader) if limit is None else min(limit, len(reader))
    records: list[tuple[int, tuple[str, ...]]] = []
    waiting: list[Images] = []
    parts: list[Embeddings] = []

    def make(index: int) -> tuple[Images, int, tuple[str, ...]]:
        record = reader[index]
        return clip.preprocess(record.load())[0][None], label_of(record), record.captions

    for done, (image, label, captions) in enumerate(prefetched(make, count, workers), start=1):
        waiting.append(image)
        records.append((label, captions))
        if len(waiting) == batch or done == count:
            parts.append(clip.encode_image(torch.cat(waiting), normalize=normalize).cpu())
            waiting.clear()
        if on_progress is not None:
            on_progress(done, count)
    labels = torch.tensor([label for label, _ in records], dtype=torch.int64)
    embeddings = torch.cat(parts) if parts else torch.zeros(0, clip.dim)
    levels = clip.levels if isinstance(clip, ClipWithLevels) else ()
    return WholeImages(embeddings, labels, tuple(captions for _, captions in records), levels)


def label_of(record: Record) -> int:
    """Return the label of an image as a whole, or IGNORE where the record has none or speaks of regions."""
    if record.labels is None or len(record.labels) != 1 or record.boxes is not None or record.masks is not None:
        return IGNORE
    return int(record.labels[0])


def classification(
    clip: Clip, images: WholeImages, words: Words, templates: str | Templates | None = None
) -> Recognition:
    """Return zero-shot accuracy over the images that have a label: ``micro`` over images, ``macro`` over classes.

    ``words`` holds one word per label. Raises DataError where no image has a label.
    """
    if not bool((images.labels != IGNORE).any()):
        raise DataError("no image has a label of its own, so there is nothing to classify.")
    bank = as_bank(clip, words, templates)
    metric = RegionRecognition(bank.names)
    metric.update(score(images.embeddings, bank), images.labels)
    return metric.compute()


def retrieval(clip: Clip, images: WholeImages) -> Retrieval:
    """Return recall at 1, 5 and 10 by the cosine, texts to images and back, over the images that have captions.

    All their captions are candidates. Raises DataError where no image has one.
    """
    return retrievals(clip, images, {"cosine": None})["cosine"]


@torch.no_grad()
def retrievals(
    clip: Clip, images: WholeImages, matchers: Mapping[str, Matcher | None], *, lot: int | None = None
) -> dict[str, Retrieval]:
    """Return, by the name of each matcher (None: the cosine), recall as ``retrieval`` does; captions are encoded once.

    With ``lot`` images are looked for among so many at a time, in order, and recall is the mean over lots; what is left
    over is left out, as in the thousands of COCO's test images.

    Raises:
        InputError: a matcher of another width than the model's, of raw embeddings where images have length one, or
            that looks at other levels than the images have.
        DataError: no image has a caption.
    """
    for name, matcher in matchers.items():
        check_matcher(matcher, clip)
        if looked_at(matcher) != images.levels:
            raise InputError(
                f"The matcher {name!r} looks at the levels {looked_at(matcher)}, and the images have details of "
                f"{images.levels}. Encode them with models.with_levels(clip, {looked_at(matcher)})."
            )
    captioned = [row for row, captions in enumerate(images.captions) if captions]
    if not captioned:
        raise DataError("no image has a caption, so there is nothing to retrieve.")
    rows = images.embeddings[captioned]
    texts = clip.encode_text([text for row in captioned for text in images.captions[row]], normalize=False).cpu()
    owner = torch.tensor([place for place, row in enumerate(captioned) for _ in images.captions[row]])
    size = len(rows) if lot is None else min(lot, len(rows))
    lots = [(first, (owner >= first) & (owner < first + size)) for first in range(0, len(rows) - size + 1, size)]
    return {
        name: mean_recall(
            [
                retrieval_recall(
                    rows[first : first + size],
                    texts[own],
                    owner[own] - first,
                    score=None if matcher is None else partial(pair_scores, matcher=matcher),
                )
                for first, own in lots
            ]
        )
        for name, matcher in matchers.items()
    }
