"""Detection measured: average precision over a reader's boxes, base and novel words apart."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, TypeAlias, TypeVar

import torch

from closeup.data.prefetch import prefetched
from closeup.data.record import Reader, Record
from closeup.data.things import novel_marks, thing_names
from closeup.errors import InputError
from closeup.evaluate import AveragePrecision
from closeup.evaluate.detection import LVIS_LIMIT
from closeup.heads.rpn import Proposer
from closeup.heads.saved import AnyDetector
from closeup.match.detections import Objectness, Suppression
from closeup.models.clip import Clip
from closeup.models.preprocess import Size
from closeup.models.routes import Route
from closeup.predict.detect import LIMIT, DetectionResult, detect, detect_zero_shot, propose_boxes
from closeup.predict.detection_report import DetectionReport
from closeup.predict.detection_truth import masks_of, things_of, truth_of
from closeup.predict.evaluate_regions import Progress
from closeup.predict.words import Words, as_bank, detector_bank
from closeup.text import Templates, TextBank

THRESHOLD, LVIS_THRESHOLD = 0.01, 1e-4
"""Scores that count, as in F-ViT's protocols of COCO and LVIS: average precision wants the doubtful ones too."""

ZERO_SHOT_THRESHOLD, LVIS_ZERO_SHOT_THRESHOLD = 0.001, 1e-4
"""Of a CLIP alone (RegionCLIP's zero-shot inference on COCO, and with true boxes on LVIS)."""

BoxSource: TypeAlias = Literal["truth", "found"] | Proposer
"""Whose boxes a CLIP names: the data set's own, those found in the picture without labels, or a proposer's."""

Number = TypeVar("Number", int, float)

Find: TypeAlias = Callable[[Record, TextBank], DetectionResult]


def evaluate_detection(
    detector: AnyDetector,
    reader: Reader,
    *,
    words: Words | None = None,
    templates: str | Templates | None = None,
    threshold: float | None = None,
    limit_found: int | None = None,
    suppression: Suppression | None = None,
    masks: bool = False,
    limit: int | None = None,
    workers: int = 2,
    on_progress: Progress | None = None,
) -> DetectionReport:
    """Detect in every record of a reader among the names of its things, and compare with its boxes.

    All words compete at once, learned and novel (the generalised protocol); those that the detector did not learn are
    the novel ones. ``words`` has one word per thing, in the reader's order (None: its names). ``limit_found`` are the
    objects of a picture that count at most, ``threshold`` the score that they must exceed (None: 100 and 0.01, of LVIS
    300 and 0.0001). With ``masks`` objects are found by their masks and not by their boxes. Other arguments are as in
    ``evaluate_regions`` and ``detect``. LVIS is scored by its own rules, other data sets by COCO's.

    Raises:
        InputError: there are no things, words do not fit them, or masks of a detector that has none; and as ``detect``
            does.
        DataError: a record has no labelled boxes, or no masks that are asked for.
    """
    if masks and not detector.outlines:
        raise InputError(f"The detector {detector.name!r} gives boxes and no masks. Train one with masks.")
    least = _either(threshold, reader, THRESHOLD, LVIS_THRESHOLD)
    most = _either(limit_found, reader, LIMIT, LVIS_LIMIT)

    def find(record: Record, bank: TextBank) -> DetectionResult:
        return detect(detector, record.load(), bank, threshold=least, limit=most, suppression=suppression)

    bank = _one_each(reader, detector_bank(detector, _wanted(reader, words), templates))
    return _measured(find, reader, bank, tuple(detector.marks(bank.names)), limit, workers, on_progress, masks=masks)


def evaluate_zero_shot_detection(
    clip: Clip,
    reader: Reader,
    *,
    boxes: BoxSource = "truth",
    objectness: Objectness = "sigmoid",
    how: str = "dense",
    words: Words | None = None,
    templates: str | Templates | None = None,
    novel: tuple[str, ...] | None = None,
    route: str | Route = "value",
    size: int | Size | None = None,
    threshold: float | None = None,
    limit_found: int | None = None,
    suppression: Suppression | None = None,
    limit: int | None = None,
    workers: int = 2,
    on_progress: Progress | None = None,
) -> DetectionReport:
    """Let a CLIP alone name boxes of every record of a reader, and compare with the true ones.

    ``boxes`` are the true ones (all is in the naming then), those of a proposer, whose objectness takes part in the
    score, or those that are found without labels. ``novel`` are the names to tell apart in the figures (None: the
    reader's own, if it has some). The ``threshold`` is 0.001, of LVIS 0.0001, unless given. Other arguments as in
    ``evaluate_detection`` and ``detect_zero_shot``.

    Raises:
        InputError: as ``evaluate_detection``, and for novel names that are no things of the reader.
        DataError: a record has no labelled boxes.

    Source: RegionCLIP (arXiv 2112.09106), Table 4: zero-shot inference with true boxes and with an RPN's.
    """
    things = things_of(reader)
    least = _either(threshold, reader, ZERO_SHOT_THRESHOLD, LVIS_ZERO_SHOT_THRESHOLD)
    most = _either(limit_found, reader, LIMIT, LVIS_LIMIT)

    def find(record: Record, bank: TextBank) -> DetectionResult:
        picture, given, logits = record.load(), None, None
        if isinstance(boxes, Proposer):
            proposed = propose_boxes(boxes, picture)
            given, logits = proposed.boxes, proposed.logits
        elif boxes == "truth":
            truth = truth_of(record, things)
            given = truth.boxes[~torch.tensor(truth.crowd, dtype=torch.bool)]
        return detect_zero_shot(
            clip,
            picture,
            bank,
            boxes=given,
            logits=logits,
            objectness=objectness,
            how=how,
            route=route,
            size=size,
            threshold=least,
            limit=most,
            suppression=suppression,
        )

    if boxes not in ("truth", "found") and not isinstance(boxes, Proposer):
        raise InputError(f"Unknown boxes {boxes!r}: give 'truth', 'found' or a proposer.")
    bank = _one_each(reader, as_bank(clip, _wanted(reader, words), templates))
    marks = novel_marks(reader, novel)
    return _measured(find, reader, bank, marks, limit, workers, on_progress)


def _either(given: Number | None, reader: Reader, coco: Number, lvis: Number) -> Number:
    """Return what is given, or what is usual for the data set."""
    return given if given is not None else lvis if _frequencies(reader) else coco


def _frequencies(reader: Reader) -> tuple[str, ...]:
    """Return how frequent LVIS's classes are; nothing for other data sets."""
    return tuple(getattr(reader, "frequencies", ()))


def _wanted(reader: Reader, words: Words | None) -> Words:
    """Return the words that are given, or the names of the reader's things."""
    names = thing_names(reader)
    if not names:
        raise InputError("The reader has no names of things, so there is nothing to detect. Give one with labels.")
    return names if words is None else words


def _one_each(reader: Reader, bank: TextBank) -> TextBank:
    """Return a bank that has a word for each of the reader's things; InputError where it has not."""
    names = thing_names(reader)
    if len(bank) != len(names):
        raise InputError(f"{len(bank)} words for {len(names)} things of the reader: give one word per thing.")
    return bank


def _measured(
    find: Find,
    reader: Reader,
    bank: TextBank,
    novel: tuple[bool, ...],
    limit: int | None,
    workers: int,
    on_progress: Progress | None,
    *,
    masks: bool = False,
) -> DetectionReport:
    things = things_of(reader)
    metric = AveragePrecision(thing_names(reader), masks=masks)
    count = len(reader) if limit is None else min(limit, len(reader))
    start, made = time.perf_counter(), None
    for done, record in enumerate(prefetched(reader.__getitem__, count, workers), start=1):
        found, truth = find(record, bank), truth_of(record, things)
        shapes = {"masks": masks_of(record, things), "found_masks": found.masks} if masks else {}
        metric.add(
            truth.boxes,
            truth.labels,
            found.boxes,
            found.labels,
            found.scores,
            crowd=truth.crowd,
            federated=record.federated,
            **shapes,
        )
        made = found.provenance
        if on_progress is not None:
            on_progress(done, count)
    if made is None:
        raise InputError("The reader has no records. Give some.")
    return DetectionReport(
        scores=metric.compute(),
        novel=novel,
        frequencies=_frequencies(reader),
        images=count,
        seconds=(time.perf_counter() - start) / count,
        provenance=made,
    )
