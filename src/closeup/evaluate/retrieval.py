"""Image-text retrieval: recall@k in both directions, with any number of captions for an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from closeup._types import IGNORE, Labels
from closeup.errors import InputError
from closeup.evaluate._checks import check_ks, check_labels
from closeup.evaluate.recognition import ranks

ImageRows: TypeAlias = Float[Tensor, "images image_dim"]
TextRows: TypeAlias = Float[Tensor, "texts text_dim"]

Score: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""A score of every image with every text: ``(images, dim), (texts, text_dim) -> (images, texts)``, as a matcher's."""

BLOCK = 1024
"""Rows of the similarity matrix that are held at once: COCO's 5,000 x 25,000 pairs never all exist."""


def text_to_image_ranks(
    images: ImageRows, texts: TextRows, image_of_text: Labels, score: Score | None = None
) -> Int[Tensor, " texts"]:
    """Return the rank of each text's own image among all images; 1 is the best, ties count against.

    The score is the cosine where none is given. One that is given sees the embeddings as they are, at most ``BLOCK``
    images and texts at a time, and without gradients.

    Raises:
        InputError: where there is not one image index for each text, an index has no image, or the score is not of
            every image with every text.
    """
    images, texts, score = _prepare(images, texts, image_of_text, score)
    blocks = zip(torch.split(texts, BLOCK), torch.split(image_of_text, BLOCK), strict=True)
    return torch.cat([ranks(score(images, block).T, own) for block, own in blocks])


def image_to_text_ranks(
    images: ImageRows, texts: TextRows, image_of_text: Labels, score: Score | None = None
) -> Int[Tensor, " queries"]:
    """Return the rank of each image's best own caption; 1 is the best, ties count against.

    One own caption among the first k is enough, as is usual on COCO and Flickr30k with five captions
    an image: so the rank is 1 plus the captions of other images that score no lower than the best own
    one. An image without a caption asks nothing and is left out of the queries. The score, and what is raised, are as
    in ``text_to_image_ranks``.
    """
    images, texts, score = _prepare(images, texts, image_of_text, score)
    blocks = torch.split(torch.unique(image_of_text), BLOCK)
    return torch.cat([_best_own(score(images[block], texts), block[:, None] == image_of_text) for block in blocks])


def _best_own(scores: Tensor, own: Tensor) -> Tensor:
    best = scores.masked_fill(~own, -torch.inf).amax(dim=1, keepdim=True)
    return 1 + (~own & ~(scores < best)).sum(dim=1)


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Recall between 0 and 1 for each k in ``ks``, one direction each."""

    ks: tuple[int, ...]
    text_to_image: tuple[float, ...]
    image_to_text: tuple[float, ...]

    def summary(self) -> dict[str, float]:
        """Return the recalls as a flat mapping fit for JSON."""
        found = {f"text_to_image_r{k}": value for k, value in zip(self.ks, self.text_to_image, strict=True)}
        return found | {f"image_to_text_r{k}": value for k, value in zip(self.ks, self.image_to_text, strict=True)}


def mean_recall(found: Sequence[Retrieval]) -> Retrieval:
    """Return the mean of several retrievals at the same ranks; InputError where there is none, or they differ."""
    if len({each.ks for each in found}) != 1:
        raise InputError(f"{len(found)} retrievals at {sorted({each.ks for each in found})}: give some at equal ranks.")
    directions = (
        tuple(fmean(column) for column in zip(*(getattr(each, name) for each in found), strict=True))
        for name in ("text_to_image", "image_to_text")
    )
    return Retrieval(found[0].ks, *directions)


def retrieval_recall(
    images: ImageRows,
    texts: TextRows,
    image_of_text: Labels,
    ks: Sequence[int] = (1, 5, 10),
    score: Score | None = None,
) -> Retrieval:
    """Return recall@k from texts to images and from images to texts.

    ``image_of_text[t]`` is the row of the image that caption ``t`` belongs to. All images and all captions given are
    candidates. By the cosine, embeddings need not be normalised; a ``score`` of its own, as in
    ``text_to_image_ranks``, gets them as they are. FG-CLIP's code (``src/metrics.py``) divides CLIP's embeddings by
    their lengths along the wrong axis, each feature by its length over the images or texts, so that its figures of
    CLIP without a matcher are not by the cosine, and are lower than others'.

    Raises:
        InputError: where there is nothing to retrieve, or the indices or the score do not fit the embeddings.
    """
    check_ks(tuple(ks))
    if not len(texts):
        raise InputError("there is no caption to retrieve with; give at least one text and one image.")
    forward = text_to_image_ranks(images, texts, image_of_text, score)
    back = image_to_text_ranks(images, texts, image_of_text, score)
    return Retrieval(tuple(ks), _recall(forward, ks), _recall(back, ks))


def _recall(found: Int[Tensor, " queries"], ks: Sequence[int]) -> tuple[float, ...]:
    return tuple((found <= k).double().mean().item() for k in ks)


def _prepare(
    images: ImageRows, texts: TextRows, image_of_text: Labels, score: Score | None
) -> tuple[Tensor, Tensor, Score]:
    """Return both as the score wants them, and the score: by default unit lengths and their product."""
    if len(texts) != len(image_of_text):
        raise InputError(
            f"there must be one image index for each text, but {len(texts)} texts and {len(image_of_text)} indices."
        )
    check_labels(image_of_text, len(images), "image_of_text")
    if bool((image_of_text == IGNORE).any()):
        raise InputError(f"image_of_text holds {IGNORE}; leave texts without an image out.")
    if score is not None:
        return images, texts, partial(_tiled, score)
    if images.shape[1] != texts.shape[1]:
        raise InputError(
            f"images have {images.shape[1]} dimensions and texts {texts.shape[1]}; both must come from one model."
        )
    return normalize(images.float(), dim=1), normalize(texts.float(), dim=1), _product


def _product(images: Tensor, texts: Tensor) -> Tensor:
    return images @ texts.T


@torch.no_grad()
def _tiled(score: Score, images: Tensor, texts: Tensor) -> Tensor:
    tiles = [[_scored(score, some, others) for others in texts.split(BLOCK)] for some in images.split(BLOCK)]
    return torch.cat([torch.cat(row, dim=1) for row in tiles])


def _scored(score: Score, images: Tensor, texts: Tensor) -> Tensor:
    found = score(images, texts)
    if found.shape != (len(images), len(texts)):
        raise InputError(
            f"the score of {len(images)} images with {len(texts)} texts has the shape {tuple(found.shape)}; it must be "
            "one of every image with every text."
        )
    return found
