"""Regions of images in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import torch

from closeup._types import Embeddings, ImageLike
from closeup.errors import InputError
from closeup.match import Matcher, probabilities, score, top_k
from closeup.models.clip import Clip
from closeup.models.encode_regions import BoxTable, MaskStack
from closeup.models.preprocess import Size
from closeup.models.routes import Route
from closeup.predict.image_sources import Opened, Skipped, opened
from closeup.predict.matching import crop_of, scale_of, seen_by, told_of, wants_unit
from closeup.predict.provenance import Provenance, as_size, describe
from closeup.predict.results import RegionResult
from closeup.predict.words import Words, as_bank
from closeup.regions import CropPolicy
from closeup.text import Templates, TextBank


def classify(
    clip: Clip,
    image: ImageLike,
    words: Words,
    *,
    boxes: BoxTable | None = None,
    masks: MaskStack | None = None,
    how: str = "dense",
    top: int = 5,
    templates: str | Templates | None = None,
    route: str | Route = "value",
    size: int | Size | None = None,
    crop: CropPolicy | None = None,
    matcher: Matcher | None = None,
) -> RegionResult:
    """Return the ``top`` best words for every box or mask of an image; ``classify_many`` does many images.

    Args:
        clip: The model.
        image: A path, a PIL picture or a uint8 RGB array.
        words: A vocabulary, names, or a text bank made with this model.
        boxes: xyxy pixels of the original image.
        masks: Bool planes on the original image; with ``masked-crop`` boxes may come with them.
        how: The region encoder: ``dense`` or ``mask-token`` (one pass for all regions), ``crop``, ``masked-crop`` or
            ``mask-prompt``.
        top: Words kept for each region; all where there are fewer.
        templates: Name of a template set or the set itself (None: "simple", or those of the bank).
        route: How the last block is replaced in the dense map.
        size: Longest side of the image for ``dense``, input size of the crops otherwise; pixels (None: native).
        crop: How regions are cut out (None: as is usual for the encoder; for a matcher as FG-CLIP does).
        matcher: What scores regions against words (None: the cosine).

    Raises:
        InputError: for regions that are none of the image, with the index of the first wrong one; for a matcher of
            another width, or of raw embeddings where a given bank's are not.
    """
    results = classify_many(
        clip,
        [image],
        words,
        boxes=None if boxes is None else [boxes],
        masks=None if masks is None else [masks],
        how=how,
        top=top,
        templates=templates,
        route=route,
        size=size,
        crop=crop,
        matcher=matcher,
    )
    return next(results)


def classify_many(
    clip: Clip,
    images: Iterable[ImageLike],
    words: Words,
    *,
    boxes: Iterable[BoxTable] | None = None,
    masks: Iterable[MaskStack] | None = None,
    how: str = "dense",
    top: int = 5,
    templates: str | Templates | None = None,
    route: str | Route = "value",
    size: int | Size | None = None,
    crop: CropPolicy | None = None,
    matcher: Matcher | None = None,
    batch: int = 8,
    skipped: list[Skipped] | None = None,
) -> Iterator[RegionResult]:
    """Yield one result per image, in order, with ``batch`` images in memory; other arguments as in ``classify``.

    ``boxes`` and ``masks`` have one entry an image, empty ones too. An image that cannot be opened, or whose
    regions are none of it, is noted in ``skipped`` and passed over; without such a list its error is raised.

    Raises:
        InputError: as ``classify`` does, and where boxes or masks do not have one entry an image.
    """
    if top < 1:
        raise InputError(f"top is {top}; ask for at least one word a region.")
    bank = as_bank(clip, words, templates, matcher)
    seen = as_size(clip, size)
    made = describe(clip, bank, region_encoder=how, route=route, image_size=seen, top=top, **told_of(matcher))
    view = seen_by(matcher, clip, how)
    work = opened(images, boxes, masks, skipped=skipped)

    def encode(chunk: list[Opened]) -> list[Embeddings]:
        with torch.no_grad():
            return view.encode_regions(
                [item.picture for item in chunk],
                boxes=[item.boxes for item in chunk if item.boxes is not None] or None,
                masks=[item.masks for item in chunk if item.masks is not None] or None,
                how=how,
                route=route,
                size=size,
                crop=crop_of(matcher, how, crop),
                batch=batch,
                normalize=wants_unit(matcher),
            )

    chunks = iter(lambda: list(islice(work, batch)), [])
    return (
        _result(item, regions, matcher, scale_of(matcher, clip), bank, made, top)
        for chunk in chunks
        for item, regions in zip(chunk, encode(chunk), strict=True)
    )


@torch.no_grad()
def _result(
    item: Opened,
    regions: Embeddings,
    matcher: Matcher | None,
    scale: float,
    bank: TextBank,
    made: Provenance,
    top: int,
) -> RegionResult:
    scores = score(regions, bank, matcher).cpu()
    best, labels = top_k(scores, top)
    return RegionResult(
        image=item.image,
        size=item.size,
        boxes=item.boxes,
        masks=item.masks,
        labels=labels,
        scores=best,
        probabilities=probabilities(scores, scale).gather(1, labels),
        names=bank.names,
        provenance=made,
    )
