"""Semantic segmentation, measured: pooled mIoU and mean accuracy over any reader with label maps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from closeup.data.prefetch import prefetched
from closeup.data.record import Reader
from closeup.data.things import novel_marks
from closeup.errors import DataError, InputError
from closeup.evaluate import Absent, Segmentation, SemanticSegmentation, check_absent
from closeup.models.clip import Clip
from closeup.models.preprocess import Size
from closeup.models.routes import Route
from closeup.predict.banks import OwnWords, bank_for
from closeup.predict.evaluate_regions import Progress
from closeup.predict.pixels import best_words
from closeup.predict.provenance import Provenance
from closeup.predict.report import Report
from closeup.predict.scorers import DenseScorer, Scorer
from closeup.predict.words import Words
from closeup.text import Templates, TextBank


@dataclass(frozen=True, slots=True, eq=False)
class SegmentationReport(Report):
    """The confusion matrix over all pixels of a reader, what follows from it, and what made it."""

    found: Segmentation
    novel: tuple[bool, ...]
    """Which classes are reported apart as novel; none of them, perhaps."""
    images: int
    seconds: float
    """Wall-clock seconds per image, reading included."""
    provenance: Provenance
    absent: Absent = "ignore"
    """What classes that are found but true nowhere do to the mean IoU, see ``mean_iou``."""

    def summary(self, absent: Absent | None = None) -> dict[str, float | int | None]:
        """Return ``miou``, ``macc`` and ``pacc``, 0 to 1, with the pixels and classes behind them.

        ``absent`` is the report's own rule unless given. Where some classes are novel, ``miou novel`` and ``miou base``
        too.
        """
        return self.found.summary(absent or self.absent, self.novel)

    def table(self) -> list[dict[str, str | float | int]]:
        """Return one row for each class true or predicted somewhere."""
        return self.found.table()

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the confusion matrix as plain values, fit for JSON."""
        return {
            **self.summary(),
            "absent": self.absent,
            "per_class": self.table(),
            "images": self.images,
            "seconds_per_image": self.seconds,
            "provenance": self.provenance.to_dict(),
        }


def evaluate_segmentation(
    clip: Clip,
    reader: Reader,
    *,
    words: Words | None = None,
    templates: str | Templates | None = None,
    route: str | Route = "value",
    size: int | Size | None = None,
    window: int | Size | None = None,
    stride: int | Size | None = None,
    upsample: str = "bilinear",
    absent: Absent = "ignore",
    limit: int | None = None,
    batch: int = 8,
    workers: int = 2,
    on_progress: Progress | None = None,
) -> SegmentationReport:
    """Segment every record of a reader as ``segment`` does, and compare with its label map, at its own size.

    All arguments as in ``evaluate_scorer`` and ``segment``.

    Raises:
        InputError: for no names, words that do not fit them, an unknown rule, and as ``segment`` does.
        DataError: where a record has no label map.
    """
    return evaluate_scorer(
        DenseScorer(clip, route, size, window, stride, batch),
        reader,
        words=words,
        templates=templates,
        upsample=upsample,
        absent=absent,
        limit=limit,
        workers=workers,
        on_progress=on_progress,
    )


def evaluate_scorer(
    scorer: Scorer,
    reader: Reader,
    *,
    words: Words | None = None,
    templates: str | Templates | None = None,
    novel: Sequence[bool] | None = None,
    upsample: str = "bilinear",
    absent: Absent = "ignore",
    limit: int | None = None,
    workers: int = 2,
    on_progress: Progress | None = None,
) -> SegmentationReport:
    """Segment every record of a reader as ``segment_by`` does, and compare with its label map, at its own size.

    ``words`` has one word per name of the reader, in its order (None: its names); a vocabulary with synonyms
    does for classes such as "background". ``novel`` marks names that are reported apart (None: the reader's own novel
    words, if it has some, or those of a scorer with a closed list). ``absent`` is the rule of ``mean_iou`` for classes
    that are found but nowhere true, and "zero" OVSeg's. ``limit``, ``workers`` and ``on_progress`` are as in
    ``evaluate_regions``.

    Raises:
        InputError: for no names, words that do not fit them, an unknown rule, and as the scorer does.
        DataError: where a record has no label map.
    """
    check_absent(absent)
    if not reader.names:
        raise InputError("The reader has no names, so its pixels have no words to be compared with.")
    clip = scorer.clip
    bank = _bank(scorer, reader, words, templates)
    if len(bank) != len(reader.names):
        raise InputError(f"{len(bank)} words for {len(reader.names)} names of the reader: give one word per name.")
    bank = bank.to(clip.device)
    metric = SemanticSegmentation(reader.names)
    count = len(reader) if limit is None else min(limit, len(reader))
    canvas = clip.image_size
    start = time.perf_counter()
    for done, record in enumerate(prefetched(reader.__getitem__, count, workers), start=1):
        if record.label_map is None:
            raise DataError(f"Record {record.id!r} has no label map: there is nothing to compare pixels with.")
        found = scorer.score(record, record.load(), bank)
        canvas = found.canvas
        rows, cols = record.label_map.shape
        best = found.best or best_words(found.cells, (rows, cols), mode=upsample)
        metric.update(best.labels, record.label_map)
        if on_progress is not None:
            on_progress(done, count)
    return SegmentationReport(
        found=metric.compute(),
        novel=tuple(_novel(scorer, reader, bank) if novel is None else novel),
        images=count,
        seconds=(time.perf_counter() - start) / max(count, 1),
        provenance=scorer.describe(bank, canvas, upsample=upsample),
        absent=absent,
    )


def _bank(scorer: Scorer, reader: Reader, words: Words | None, templates: str | Templates | None) -> TextBank:
    if words is not None or not isinstance(scorer, OwnWords):
        return bank_for(scorer, reader.names if words is None else words, templates)
    bank_for(scorer, None, templates)  # whatever is wrong with the templates has nothing to do with the names
    try:
        return bank_for(scorer, reader.names, templates)
    except InputError as error:
        raise InputError(
            f"The names of the data set do not do as words: {error} Give words for them, one for each name."
        ) from error


def _novel(scorer: Scorer, reader: Reader, bank: TextBank) -> Sequence[bool]:
    return scorer.novel_of(bank) if isinstance(scorer, OwnWords) else novel_marks(reader, grounds=True)
