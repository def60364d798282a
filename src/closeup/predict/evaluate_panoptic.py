"""Panoptic segmentation measured: panoptic quality over a reader's segments, base and novel words apart."""

from __future__ import annotations

import time

from closeup.data.prefetch import prefetched
from closeup.data.record import Reader
from closeup.errors import InputError
from closeup.evaluate.panoptic import PanopticQuality, Segments
from closeup.heads.mask_proposer import MaskProposer
from closeup.models.clip import Clip
from closeup.models.routes import Route
from closeup.predict.evaluate_regions import Progress
from closeup.predict.panoptic import (
    NOVEL_WEIGHT,
    OVERLAP,
    SMALLEST,
    THRESHOLD,
    WEIGHT,
    panoptic,
)
from closeup.predict.panoptic_report import PanopticReport
from closeup.predict.panoptic_truth import segments_of
from closeup.predict.segment_masks import novel_marks
from closeup.predict.words import Words, as_bank
from closeup.text import Templates


def evaluate_panoptic(
    clip: Clip,
    proposer: MaskProposer,
    reader: Reader,
    *,
    words: Words | None = None,
    how: str = "dense",
    weight: float = WEIGHT,
    novel_weight: float = NOVEL_WEIGHT,
    threshold: float = THRESHOLD,
    overlap: float = OVERLAP,
    apart: str = "components",
    gaps: bool = True,
    smallest: float = SMALLEST,
    templates: str | Templates | None = None,
    route: str | Route = "value",
    size: int | None = None,
    batch: int = 8,
    limit: int | None = None,
    workers: int = 2,
    on_progress: Progress | None = None,
) -> PanopticReport:
    """Segment every record of a reader as ``panoptic`` does, and compare with its segments, at its own size.

    All words compete at once, learned and novel; those that the proposer did not learn are the novel ones. ``words``
    has one word per name of the reader, in its order (None: its names). ``limit``, ``workers`` and ``on_progress`` are
    as in ``evaluate_regions``, all other arguments as in ``panoptic``.

    Raises:
        InputError: there are no names, no records, or words that do not fit them; and as ``panoptic`` does.
        DataError: a record has no segments, or such as overlap.
    """
    if not reader.names:
        raise InputError("The reader has no names, so its segments have no words to be found by. Give one with labels.")
    bank = as_bank(clip, reader.names if words is None else words, templates)
    if len(bank) != len(reader.names):
        raise InputError(f"{len(bank)} words for {len(reader.names)} names of the reader: give one word per name.")
    things = [name for name, thing in zip(bank.names, reader.things, strict=True) if thing]
    metric = PanopticQuality(reader.names, reader.things)
    count = len(reader) if limit is None else min(limit, len(reader))
    start, made = time.perf_counter(), None
    for done, record in enumerate(prefetched(reader.__getitem__, count, workers), start=1):
        truth = segments_of(record, reader.things)
        found = panoptic(
            clip,
            proposer,
            record.load(),
            bank,
            things=things,
            how=how,
            weight=weight,
            novel_weight=novel_weight,
            threshold=threshold,
            overlap=overlap,
            apart=apart,
            gaps=gaps,
            smallest=smallest,
            route=route,
            size=size,
            batch=batch,
        )
        metric.update(Segments(found.places, found.labels), truth)
        made = found.provenance
        if on_progress is not None:
            on_progress(done, count)
    if made is None:
        raise InputError("The reader has no records. Give some.")
    return PanopticReport(
        scores=metric.compute(),
        novel=novel_marks(proposer, bank.vocabulary),
        images=count,
        seconds=(time.perf_counter() - start) / count,
        provenance=made,
    )
