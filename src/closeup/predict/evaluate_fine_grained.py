"""FG-OVD's rank of right captions (FG-CLIP's evaluation), by any region encoder and matcher, over any reader."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import islice

import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from closeup._types import Boxes, Embeddings, Masks
from closeup.data.prefetch import prefetched
from closeup.data.record import Reader, Record
from closeup.errors import DataError, InputError, suggest
from closeup.geometry import masks_to_boxes
from closeup.match.matcher import Matcher
from closeup.models.clip import Clip, digest
from closeup.models.encode_regions import ENCODERS, MASKED, MASKED_CROPS, check_batch_size
from closeup.models.preprocess import Size
from closeup.models.routes import Route
from closeup.predict.caption_embeddings import CaptionEmbeddings
from closeup.predict.evaluate_regions import Progress
from closeup.predict.fine_grained_report import DescribedRegion, FineGrainedReport
from closeup.predict.provenance import as_size, describe_captions
from closeup.regions import FG_CLIP
from closeup.regions.masked_crops import OVSEG
from closeup.text import Templates, get_templates

CROPS = ("crop", *MASKED_CROPS)


def evaluate_fine_grained(
    clip: Clip,
    reader: Reader,
    *,
    negatives: int,
    matcher: Matcher | None = None,
    how: str = "crop",
    scale: float = 1.0,
    route: str | Route = "value",
    size: int | Size | None = None,
    templates: str | Templates = "name",
    limit: int | None = None,
    batch: int = 8,
    workers: int = 2,
    on_progress: Progress | None = None,
) -> FineGrainedReport:
    """Return how the right caption of every described region scores against its first ``negatives`` wrong ones.

    A caption is embedded once, however many regions it is said of; all that is kept are captions and scores.

    Args:
        clip: The model.
        reader: Records with boxes or masks and descriptions; others of its records are passed over.
        negatives: Wrong captions of a region at most; one with fewer has scores, and no rank. In FG-OVD 10, for
            patterns 7 and for transparency 2.
        matcher: What scores regions against captions, from raw embeddings (None: the cosine).
        how: The region encoder. Crops are FG-CLIP's, masked ones OVSeg's.
        scale: Factor by which crops are enlarged about their centre.
        route: How the last block is replaced in the dense map.
        size: Longest side of the images for the dense map, or the side of crops (None: the model's own).
        templates: Sentences around the captions, averaged as the tower gives them ("name": captions as they are).
        limit: Only the first so many records.
        batch: Images that are encoded at a time, as in ``Clip.encode_regions``.
        workers: Threads that read records ahead; 0 for a reader that bears only one thread.
        on_progress: Called with the records done and the records in all.

    Raises:
        InputError: for an unknown region encoder or templates, a matcher of another width than the model's, ``scale``
            of an encoder that cuts nothing out, or a number below one.
        DataError: no record describes a region, or a region has not what the region encoder needs.

    Source: FG-CLIP (``lorebianchi98/FG-CLIP``, ``fg-ovd_feature_extraction`` and ``src/eval_util.py``) on FG-OVD (arXiv
    2311.17518). There are no regions but crops there.
    """
    _check(clip, negatives, matcher, how, scale)
    check_batch_size(batch)
    sentences = get_templates(templates) if isinstance(templates, str) else templates
    captions = CaptionEmbeddings(clip, sentences)
    crop = replace(FG_CLIP if how == "crop" else OVSEG, enlarge=scale) if how in CROPS else None
    items: list[DescribedRegion] = []
    count = len(reader) if limit is None else min(limit, len(reader))
    start, done = time.perf_counter(), 0
    waiting = prefetched(lambda index: _loaded(reader[index], how), count, workers)
    while group := list(islice(waiting, batch)):
        shown = [each for each in group if each is not None]
        shapes = [each.shapes for each in shown]
        encoded = clip.encode_regions(
            [each.picture for each in shown],
            boxes=None if how in MASKED else shapes,
            masks=shapes if how in MASKED else None,
            how=how,
            route=route,
            size=size,
            crop=crop,
            batch=batch,
            normalize=how == "dense" and matcher is None,
        )
        for each, regions in zip(shown, encoded, strict=True):
            items += _scored(each.record, regions, captions, negatives, matcher)
        done += len(group)
        if on_progress is not None:
            on_progress(done, count)
    if not items:
        raise DataError(
            f"None of {count} records describes a region, so there is nothing to rank. Give FG-OVD's files."
        )
    return FineGrainedReport(
        items=tuple(items),
        negatives=negatives,
        images=count,
        seconds=(time.perf_counter() - start) / count,
        provenance=describe_captions(
            clip,
            captions.known,
            templates=sentences.name,
            region_encoder=how,
            route=route,
            image_size=as_size(clip, size),
            scale=scale,
            negatives=negatives,
            matcher="cosine" if matcher is None else matcher.kind,
            matcher_weights=None if matcher is None else digest(matcher.state_dict(), matcher.kind),
        ),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Loaded:
    """A record with described regions, opened: its picture, and the boxes or masks that the region encoder needs."""

    record: Record
    picture: PIL.Image.Image
    shapes: Boxes | Masks


def _loaded(record: Record, how: str) -> _Loaded | None:
    if not record.descriptions:
        return None
    shapes = record.masks if how in MASKED else record.boxes
    if shapes is None and record.masks is not None:
        shapes = masks_to_boxes(record.masks)
    if shapes is None:
        needed = "masks" if how in MASKED else "boxes"
        raise DataError(f"Record {record.id!r} has no {needed}, which the region encoder {how!r} needs.")
    return _Loaded(record, record.load(), shapes)


@torch.no_grad()
def _scored(
    record: Record, regions: Embeddings, captions: CaptionEmbeddings, negatives: int, matcher: Matcher | None
) -> list[DescribedRegion]:
    asked = [(each.right, *each.wrong[:negatives]) for each in record.descriptions]
    longest = max(map(len, asked))
    # Shorter lists are filled up with their right caption; those scores are cut off again.
    texts = [text for each in asked for text in (*each, *each[:1] * (longest - len(each)))]
    embedded = captions.embed(texts).to(regions.device).unflatten(0, (len(asked), longest))
    scores = (_cosines(regions, embedded) if matcher is None else _matched(matcher, regions, embedded)).cpu()
    attributes = record.attributes or ({},) * len(asked)
    return [
        DescribedRegion(record.id, row, record.descriptions[row], attributes[row], scores[row, : len(each)])
        for row, each in enumerate(asked)
    ]


def _cosines(regions: Embeddings, captions: Float[Tensor, "count captions dim"]) -> Float[Tensor, "count captions"]:
    return torch.einsum("nd,njd->nj", normalize(regions, dim=1), normalize(captions, dim=2))


def _matched(matcher: Matcher, regions: Embeddings, captions: Float[Tensor, "count captions _"]) -> Tensor:
    weight = next(matcher.parameters(), regions)
    return matcher.of_own(regions.to(weight.device), captions.to(weight.device))


def _check(clip: Clip, negatives: int, matcher: Matcher | None, how: str, scale: float) -> None:
    if negatives < 1:
        raise InputError(f"negatives is {negatives}: ask among 1 wrong caption or more.")
    if how not in ENCODERS:
        raise InputError(f"Unknown region encoder {how!r}. {suggest(how, ENCODERS)}")
    if scale != 1 and how not in CROPS:
        raise InputError(f"scale is {scale}, but the region encoder {how!r} cuts nothing out. Leave it at 1.")
    if matcher is not None and matcher.dim not in (None, clip.dim):
        raise InputError(
            f"The matcher {matcher.kind!r} is for embeddings of {matcher.dim} dimensions, and those of {clip.name!r} "
            f"have {clip.dim}. Give one that was trained on this model."
        )
