"""Several benchmarks of fine-grained matching by several matchers, of one pass over pictures and captions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor

from closeup._types import Embeddings
from closeup.data.fgovd import BENCHMARKS
from closeup.data.prefetch import prefetched
from closeup.data.record import Reader
from closeup.data.world.fine_grained import FineGrainedWorld
from closeup.errors import DataError, InputError, suggest
from closeup.match.matcher import Matcher
from closeup.match.matchers import new_matcher
from closeup.models.clip import Clip
from closeup.models.encode_regions import ENCODERS, MASKED_CROPS, check_batch_size
from closeup.models.preprocess import Size
from closeup.models.routes import Route
from closeup.predict.benchmarks_report import BenchmarksReport
from closeup.predict.caption_embeddings import CaptionEmbeddings
from closeup.predict.embed_described import Asked, RegionEmbeddings, asked_of
from closeup.predict.evaluate_regions import Progress
from closeup.predict.fine_grained_report import DescribedRegion, FineGrainedReport
from closeup.predict.matching import check_matcher, looked_at, seen_by, told_of, wants_unit
from closeup.predict.provenance import as_size, describe_captions
from closeup.regions import FG_CLIP
from closeup.regions.masked_crops import OVSEG
from closeup.text import Templates, get_templates

CROPS = ("crop", *MASKED_CROPS)


def evaluate_benchmarks(
    clip: Clip,
    readers: Mapping[str, Reader],
    matchers: Mapping[str, Matcher | None],
    *,
    negatives: Mapping[str, int] | None = None,
    how: str = "crop",
    scale: float = 1.0,
    route: str | Route = "value",
    size: int | Size | None = None,
    templates: str | Templates = "name",
    limit: int | None = None,
    batch: int = 8,
    workers: int = 2,
    on_progress: Progress | None = None,
) -> dict[str, BenchmarksReport]:
    """Return, by the name of each matcher, how right captions score against wrong ones in every benchmark.

    However many matchers there are, each region of a picture and each caption is encoded once; regions once more for
    each choice of levels that matchers look at, and with "dense" where some want raw embeddings and some those of
    length one.

    Args:
        clip: The model.
        readers: By benchmark, records with boxes or masks and descriptions; others of its records are passed over.
            Records of one number are read together, so that readers that share pictures can share the work on them.
        matchers: By any name, what scores regions against captions (None: the cosine).
        negatives: By benchmark, how many wrong captions of a region take part (None: FG-OVD's own, fewer where the
            world has no more).
        how: As in ``evaluate_fine_grained``, and so are the rest.
        scale: Factor by which crops are enlarged about their centre.
        route: How the last block is replaced in the dense map.
        size: Longest side of the images for the dense map, or the side of crops.
        templates: Sentences around the captions.
        limit: Only the first so many records of each benchmark.
        batch: Images that are encoded at a time.
        workers: Threads that read records ahead.
        on_progress: Called with the numbers of records done, and those of the longest benchmark.

    Raises:
        InputError: as ``evaluate_fine_grained``; or a benchmark that FG-OVD has not, and no number of wrong captions.
        DataError: no record of any benchmark describes a region, or a region has not what the region encoder needs.
    """
    asked = negatives_of(readers, negatives)
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}: give at least one record.")
    _check(clip, matchers, how, scale)
    check_batch_size(batch)
    sentences = get_templates(templates) if isinstance(templates, str) else templates
    captions = CaptionEmbeddings(clip, sentences)
    crop = replace(FG_CLIP if how == "crop" else OVSEG, enlarge=scale) if how in CROPS else None
    # Only the dense map is another where its cells are brought to length one.
    forms = {name: _form(how, matcher) for name, matcher in matchers.items()}
    views = {forms[name]: seen_by(matcher, clip, how) for name, matcher in matchers.items()}
    regions = {form: RegionEmbeddings(view, how, route, size, crop, batch, form.unit) for form, view in views.items()}
    scorers = {name: new_matcher("cosine") if matcher is None else matcher for name, matcher in matchers.items()}
    items: dict[str, dict[str, list[DescribedRegion]]] = {name: {each: [] for each in readers} for name in matchers}
    counts = {name: len(reader) if limit is None else min(limit, len(reader)) for name, reader in readers.items()}
    longest, done, start = max(counts.values(), default=0), 0, time.perf_counter()

    def read(index: int) -> list[tuple[str, Asked, PIL.Image.Image]]:
        found = [(name, asked_of(reader[index], how)) for name, reader in readers.items() if index < counts[name]]
        return [(name, each, each.record.load()) for name, each in found if each is not None]

    waiting = prefetched(read, longest, workers)
    while group := list(islice(waiting, batch)):
        records = [each for row in group for each in row]
        encoded = {each: table.embed([(one, photo) for _, one, photo in records]) for each, table in regions.items()}
        for place, (benchmark, one, _) in enumerate(records):
            texts = _texts(one, asked[benchmark])
            embedded = captions.embed([text for row in texts for text in row])
            for name, scorer in scorers.items():
                rows = encoded[forms[name]][place]
                items[name][benchmark] += _scored(one, texts, rows, embedded, scorer)
        done += len(group)
        if on_progress is not None:
            on_progress(done, longest)
    if not any(each for found in items.values() for each in found.values()):
        raise DataError(
            f"None of {sum(counts.values())} records describes a region, so there is nothing to rank. Give FG-OVD's"
            " files."
        )
    seconds = (time.perf_counter() - start) / max(longest, 1)

    def report(matcher: Matcher | None, benchmark: str, found: list[DescribedRegion]) -> FineGrainedReport:
        wrong = asked[benchmark]
        said = {text for item in found for text in (item.description.right, *item.description.wrong[:wrong])}
        provenance = describe_captions(
            clip,
            said,
            templates=sentences.name,
            region_encoder=how,
            route=route,
            image_size=as_size(clip, size),
            scale=scale,
            negatives=wrong,
            **({"matcher": "cosine"} | told_of(matcher)),
        )
        return FineGrainedReport(tuple(found), wrong, counts[benchmark], seconds, provenance)

    return {
        name: BenchmarksReport({each: report(matcher, each, items[name][each]) for each in readers})
        for name, matcher in matchers.items()
    }


def negatives_of(readers: Mapping[str, Reader], given: Mapping[str, int] | None = None) -> dict[str, int]:
    """Return how many wrong captions take part in each benchmark: as given, as its reader has them, or FG-OVD's N.

    Raises:
        InputError: a number below one, or none for a benchmark that is not FG-OVD's.
    """
    if given is None:
        known = {name: each.negatives for name, each in BENCHMARKS.items()}
        own = known | {name: each.negatives for name, each in readers.items() if isinstance(each, FineGrainedWorld)}
    else:
        own = dict(given)
    for name in readers:
        if name not in own:
            raise InputError(f"{name!r} is none of FG-OVD's benchmarks: say how many wrong captions take part (N).")
        if own[name] < 1:
            raise InputError(f"negatives is {own[name]}: ask among 1 wrong caption or more.")
    return {name: own[name] for name in readers}


class _Form(NamedTuple):
    """How embeddings of regions come: of length one or not, and with details of which levels."""

    unit: bool
    levels: tuple[int, ...]


def _form(how: str, matcher: Matcher | None) -> _Form:
    return _Form(how == "dense" and wants_unit(matcher), looked_at(matcher))


def _texts(asked: Asked, negatives: int) -> list[tuple[str, ...]]:
    """Return the captions that are asked of each region; shorter lists are filled up with their right caption."""
    rows = [(each.right, *each.wrong[:negatives]) for each in asked.record.descriptions]
    longest = max(map(len, rows))
    return [(*row, *row[:1] * (longest - len(row))) for row in rows]


@torch.no_grad()
def _scored(
    asked: Asked,
    texts: Sequence[Sequence[str]],
    regions: Embeddings,
    captions: Float[Tensor, "captions text_dim"],
    matcher: Matcher,
) -> list[DescribedRegion]:
    like = matcher.like(regions)
    rows = captions.to(like).unflatten(0, (len(texts), len(texts[0])))
    scores = matcher.of_own(regions.to(like), rows).cpu()
    record = asked.record
    attributes = record.attributes or ({},) * len(texts)
    return [
        # What a list was filled up with is cut off again.
        DescribedRegion(
            record.id, row, told, attributes[row], scores[row, : 1 + min(len(told.wrong), len(texts[0]) - 1)]
        )
        for row, told in enumerate(record.descriptions)
    ]


def _check(clip: Clip, matchers: Mapping[str, Matcher | None], how: str, scale: float) -> None:
    if not matchers:
        raise InputError("There is no matcher to evaluate: name at least one; None is the cosine.")
    for matcher in matchers.values():
        check_matcher(matcher, clip)
    if how not in ENCODERS:
        raise InputError(f"Unknown region encoder {how!r}. {suggest(how, ENCODERS)}")
    if scale != 1 and how not in CROPS:
        raise InputError(f"scale is {scale}, but the region encoder {how!r} cuts nothing out. Leave it at 1.")
