"""Semantic segmentation without training, measured: pooled mIoU and mean accuracy over any reader with label maps."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from closeup.data.record import Reader
from closeup.errors import DataError, InputError
from closeup.evaluate import Absent, Segmentation, SemanticSegmentation, check_absent
from closeup.models.clip import Clip
from closeup.models.preprocess import Size
from closeup.models.routes import Route
from closeup.predict.cells import score_cells
from closeup.predict.evaluate_regions import Progress
from closeup.predict.pixels import best_words
from closeup.predict.prefetch import prefetched
from closeup.predict.provenance import Provenance, as_size, describe
from closeup.predict.report import Report
from closeup.predict.words import Words, as_bank
from closeup.text import Templates


@dataclass(frozen=True, slots=True, eq=False)
class SegmentationReport(Report):
    """The confusion matrix over all pixels of a reader, what follows from it, and what made it."""

    found: Segmentation
    images: int
    seconds: float
    """Wall-clock seconds per image, reading included."""
    provenance: Provenance
    absent: Absent = "ignore"
    """What classes that are found but true nowhere do to the mean IoU, see ``mean_iou``."""

    def summary(self, absent: Absent | None = None) -> dict[str, float | int | None]:
        """Return ``miou``, ``macc`` and ``pacc``, 0 to 1, with the pixels and classes behind them.

        ``absent`` is the report's own rule unless given.
        """
        return self.found.summary(absent or self.absent)

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

    ``words`` has one word per name of the reader, in its order (None: its names); a vocabulary with synonyms
    does for classes such as "background". ``absent`` is the rule of ``mean_iou`` for classes that are found but nowhere
    true; "zero" is OVSeg's. ``limit``, ``workers`` and ``on_progress`` are as in ``evaluate_regions``, all other
    arguments as in ``segment``.

    Raises:
        InputError: for no names, words that do not fit them, an unknown rule, and as ``segment`` does.
        DataError: where a record has no label map.
    """
    check_absent(absent)
    if not reader.names:
        raise InputError("The reader has no names, so its pixels have no words to be compared with.")
    bank = as_bank(clip, reader.names if words is None else words, templates)
    if len(bank) != len(reader.names):
        raise InputError(f"{len(bank)} words for {len(reader.names)} names of the reader: give one word per name.")
    bank = bank.to(clip.device)
    metric = SemanticSegmentation(reader.names)
    count = len(reader) if limit is None else min(limit, len(reader))
    start = time.perf_counter()
    for done, record in enumerate(prefetched(reader.__getitem__, count, workers), start=1):
        if record.label_map is None:
            raise DataError(f"Record {record.id!r} has no label map: there is nothing to compare pixels with.")
        cells, _ = score_cells(
            clip, record.load(), bank, route=route, size=size, window=window, stride=stride, batch=batch
        )
        rows, cols = record.label_map.shape
        metric.update(best_words(cells, (rows, cols), mode=upsample).labels, record.label_map)
        if on_progress is not None:
            on_progress(done, count)
    return SegmentationReport(
        found=metric.compute(),
        images=count,
        seconds=(time.perf_counter() - start) / max(count, 1),
        provenance=describe(
            clip,
            bank,
            region_encoder="dense",
            route=route,
            image_size=as_size(clip, size),
            window=None if window is None else str(window),
            stride=None if stride is None else str(stride),
            upsample=upsample,
        ),
        absent=absent,
    )
