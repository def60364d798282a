"""The forgetting report: what an adapted model lost at whole-image tasks, beside what it gained on regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from closeup._types import IGNORE
from closeup.data.record import Reader
from closeup.data.world import World
from closeup.data.world.closeups import CloseUps
from closeup.data.world.probe import Question, attribute_probe
from closeup.errors import InputError
from closeup.evaluate import Retrieval
from closeup.models.clip import Clip
from closeup.models.mask_prompt import cut_out_view
from closeup.models.preprocess import Size
from closeup.models.routes import Route
from closeup.models.windows import Window
from closeup.predict.evaluate_regions import evaluate_regions
from closeup.predict.forgetting_report import CLASSIFICATION, REGIONS, RETRIEVAL, Figure, Figures, ForgettingReport
from closeup.predict.region_report import RegionReport
from closeup.predict.whole_image import Progress, WholeImages, classification, encode_whole, label_of, retrieval
from closeup.recipes.pretrain import answers
from closeup.text import Templates

CLOSE_UPS = 600
"""Close-ups of the world that a report asks about."""


def evaluate_forgetting(
    before: Clip,
    after: Clip,
    reader: Reader,
    *,
    how: Sequence[str] = ("dense", "crop"),
    **settings: Any,  # noqa: ANN401
) -> ForgettingReport:
    """Return what ``after`` gained, on the first region encoder, and forgot; settings as for ``measure``."""
    return ForgettingReport(
        measure(before, reader, how=how, **settings), measure(after, reader, how=how, **settings), taught=how[0]
    )


def measure(
    clip: Clip,
    reader: Reader,
    *,
    how: Sequence[str] = ("dense", "crop"),
    templates: str | Templates | None = "vild-63",
    route: str | Route = "value",
    window: Window | None = None,
    size: int | Size | None = None,
    limit: int | None = None,
    close_ups: int = CLOSE_UPS,
    workers: int = 2,
    on_progress: Progress | None = None,
) -> Figures:
    """Return a model's figures on whatever the reader's records allow; two models' make a report.

    Records with labelled boxes or masks: top-1 of region recognition, as ``evaluate_regions``. Records with one
    label for the whole image: zero-shot accuracy. Records with captions: recall at 1, 5 and 10. The world has
    scenes for the first, and for the others close-ups of its own: questions about the shape and each attribute
    (``attribute_probe``), and captions that name everything (``CloseUps``), because the captions of scenes fit
    many of them.

    Args:
        clip: The model.
        reader: The records, all of the kind of the first.
        how: The region encoders; masked crops are seen with the model's mask prompts where it has some.
        templates: The sentences around class names.
        route: How the last block is replaced in the dense map.
        window: Cells along a side of windows that attention stays inside in the dense map.
        size: Side that images are brought to for the dense map (None: 64 cells).
        limit: Only the first so many records.
        close_ups: How many of the world's close-ups.
        workers: Threads that read records ahead.
        on_progress: Called with the records done and the records in all, for each task anew.

    Raises:
        InputError: the reader's records hold nothing of this, or there are none.
    """
    tasks = tasks_of(reader)
    figures: list[Figure] = []
    if REGIONS in tasks:
        own = {_own(clip, encoder): encoder for encoder in how}
        if len(own) < len(how):
            raise InputError(f"{', '.join(how)}: of {clip.name!r}, which has mask prompts, two are one. Drop one.")
        report = evaluate_regions(
            clip,
            reader,
            how=tuple(own),
            templates=templates,
            route=route,
            window=window,
            size=size,
            limit=limit,
            workers=workers,
            on_progress=on_progress,
        )
        figures += _of_regions(report, own)
    if isinstance(reader, World):
        figures += measure_close_ups(clip, close_ups, workers=workers, on_progress=on_progress)
    elif tasks - {REGIONS}:
        images = encode_whole(clip, reader, limit=limit, workers=workers, on_progress=on_progress)
        if CLASSIFICATION in tasks:
            found = classification(clip, images, reader.names, templates)
            figures.append(Figure(CLASSIFICATION, "top-1", int(found.counts.sum()), found.micro()))
        if RETRIEVAL in tasks:
            figures += _of_retrieval(retrieval(clip, images), images)
    return Figures(clip.name, clip.fingerprint, tuple(figures))


def measure_close_ups(
    clip: Clip, count: int = CLOSE_UPS, *, workers: int = 2, on_progress: Progress | None = None
) -> list[Figure]:
    """Return a model's figures on close-ups of the world as whole images: questions about them, and retrieval."""
    side = max(clip.image_size)
    images = encode_whole(clip, CloseUps(count=count, side=side), workers=workers, on_progress=on_progress)
    return _of_probe(clip, _probe(count, side)) + _of_retrieval(retrieval(clip, images), images)


def tasks_of(reader: Reader) -> frozenset[str]:
    """Return which tasks the first of a reader's records allows; InputError where there is none, or no record."""
    first = reader[0] if len(reader) else None
    if first is None:
        raise InputError("There are no records to measure anything on.")
    regions = first.labels is not None and (first.boxes is not None or first.masks is not None)
    allowed = {REGIONS: regions, CLASSIFICATION: label_of(first) != IGNORE, RETRIEVAL: bool(first.captions)}
    if not any(allowed.values()):
        raise InputError(
            "The records have no labelled regions, no label for the whole image and no caption: nothing can be "
            "gained or forgotten on them. Name other data, such as world."
        )
    return frozenset(task for task, there in allowed.items() if there)


def _own(clip: Clip, encoder: str) -> str:
    return cut_out_view(clip) if encoder == "masked-crop" else encoder


def _of_regions(report: RegionReport, called: Mapping[str, str]) -> list[Figure]:
    figures = []
    for encoder, shape in report.found:
        for kind in ("things", "stuff"):
            found = report.recognition(encoder, shape, kind)
            if count := int(found.counts.sum()):
                figures.append(Figure(REGIONS, f"{called[encoder]} {shape}, {kind}", count, found.macro()))
    return figures


@torch.no_grad()
def _of_probe(clip: Clip, questions: Sequence[Question]) -> list[Figure]:
    right: dict[str, list[bool]] = {}
    for question, scores in zip(questions, answers(clip, questions), strict=True):
        right.setdefault(question.family, []).append(int(scores.argmax()) == question.answer)
    return [Figure(CLASSIFICATION, family, len(hits), float(np.mean(hits))) for family, hits in right.items()]


def _of_retrieval(found: Retrieval, images: WholeImages) -> list[Figure]:
    asked = {
        "text to image": (sum(map(len, images.captions)), found.text_to_image),
        "image to text": (sum(map(bool, images.captions)), found.image_to_text),
    }
    return [
        Figure(RETRIEVAL, f"{direction} R@{k}", count, recall)
        for direction, (count, recalls) in asked.items()
        for k, recall in zip(found.ks, recalls, strict=True)
    ]


@lru_cache(maxsize=1)
def _probe(count: int, side: int) -> tuple[Question, ...]:
    """Keep the last probe: a report asks the same of two models, a sweep of many."""
    return tuple(attribute_probe(count, side=side))
