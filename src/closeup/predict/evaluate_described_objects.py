"""FG-OVD's measures of a detector: does it find what captions describe, and tell right captions from wrong ones?"""

from __future__ import annotations

import time
from dataclasses import dataclass

import PIL.Image

from closeup.data.prefetch import prefetched
from closeup.data.record import Reader, Record
from closeup.errors import DataError, InputError
from closeup.evaluate import Answer, Objects
from closeup.heads.saved import AnyDetector
from closeup.predict.caption_detectors import CaptionDetector, Captions, as_caption_detector
from closeup.predict.described_objects_report import DescribedObjectsReport
from closeup.predict.evaluate_regions import Progress

BOXES = 100
"""Boxes of an answer that count at most, as in FG-OVD."""


def evaluate_described_objects(
    detector: AnyDetector | CaptionDetector,
    reader: Reader,
    *,
    negatives: int,
    limit_found: int = BOXES,
    limit: int | None = None,
    workers: int = 2,
    on_progress: Progress | None = None,
) -> DescribedObjectsReport:
    """Ask a detector for the right caption of every described region among its first ``negatives`` wrong ones.

    It is asked once in a picture for each right caption, whose wrong ones are those of the last region that has it. Of
    its boxes the ``limit_found`` best count. ``evaluate_fine_grained`` asks a CLIP the same about the true boxes, by
    crops or by the dense map; what is lost between the two is the detector's.

    Args:
        detector: One of any words, or whatever answers to captions.
        reader: Records with boxes or masks and descriptions; others of its records are passed over.
        negatives: Wrong captions of a region; one with fewer takes no part. In FG-OVD 10, for patterns 7 and for
            transparency 2.
        limit_found: Boxes that count, of each answer.
        limit: Only the first so many records.
        workers: Threads that read records ahead; 0 for a reader that bears only one thread.
        on_progress: Called with the records done and the records in all.

    Raises:
        InputError: a detector of a closed list of words, or a number below one.
        DataError: no record describes a region with enough wrong captions, or one has neither boxes nor masks.

    Source: Bianchi et al., FG-OVD, CVPR 2024 (arXiv 2311.17518).
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}: give at least one record.")
    if negatives < 1 or limit_found < 1:
        raise InputError(f"negatives is {negatives} and limit_found {limit_found}: give 1 or more of each.")
    asking = as_caption_detector(detector)
    count = len(reader) if limit is None else min(limit, len(reader))
    start = time.perf_counter()
    objects: list[Objects] = []
    answers: list[Answer] = []
    skipped = 0
    waiting = prefetched(lambda index: _loaded(reader[index], negatives), count, workers)
    for done, each in enumerate(waiting, start=1):
        if each is not None:
            objects.append(each.objects)
            given = asking.ask(each.objects.image, each.picture, each.asked) if each.asked else []
            answers += [answer.first(limit_found) for answer in given if answer is not None]
            skipped += given.count(None)
        if on_progress is not None:
            on_progress(done, count)
    if not any(len(wrong) >= negatives for each in objects for wrong in each.wrong):
        raise DataError(
            f"None of {count} records describes a region with {negatives} wrong captions, so there is nothing to ask "
            "for. Give FG-OVD's files, or fewer negatives."
        )
    return DescribedObjectsReport(
        objects=tuple(objects),
        answers=tuple(answers),
        negatives=negatives,
        skipped=skipped,
        images=count,
        seconds=(time.perf_counter() - start) / count,
        provenance=asking.provenance(negatives=negatives, limit=limit_found),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Loaded:
    """A record with described regions, opened, and what is asked about it."""

    objects: Objects
    picture: PIL.Image.Image
    asked: list[Captions]


def _loaded(record: Record, negatives: int) -> _Loaded | None:
    if not record.descriptions:
        return None
    boxes = record.known_boxes()
    if boxes is None:
        raise DataError(f"Record {record.id!r} has neither boxes nor masks, so what a detector finds fits nothing.")
    said = record.descriptions
    objects = Objects(record.id, boxes, tuple(each.right for each in said), tuple(each.wrong for each in said))
    asked = {each.right: each.wrong[:negatives] for each in said if len(each.wrong) >= negatives}
    return _Loaded(objects, record.load(), [(right, *wrong) for right, wrong in asked.items()])
