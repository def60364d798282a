"""Image-text retrieval: recall@k in both directions, with any number of captions for an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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

BLOCK = 1024
"""Rows of the similarity matrix that are held at once: COCO's 5,000 x 25,000 pairs never all exist."""


def text_to_image_ranks(images: ImageRows, texts: TextRows, image_of_text: Labels) -> Int[Tensor, " texts"]:
    """Return the rank of each text's own image among all images by cosine; 1 is the best, ties count against.

    Raises:
        InputError: where there is not one image index for each text, or an index has no image.
    """
    images, texts = _prepare(images, texts, image_of_text)
    blocks = zip(torch.split(texts, BLOCK), torch.split(image_of_text, BLOCK), strict=True)
    return torch.cat([ranks(block @ images.T, own) for block, own in blocks])


def image_to_text_ranks(images: ImageRows, texts: TextRows, image_of_text: Labels) -> Int[Tensor, " queries"]:
    """Return the rank of each image's best own caption by cosine; 1 is the best, ties count against.

    One own caption among the first k is enough, as is usual on COCO and Flickr30k with five captions
    an image: so the rank is 1 plus the captions of other images that score no lower than the best own
    one. An image without a caption asks nothing and is left out of the queries.

    Raises:
        InputError: where there is not one image index for each text, or an index has no image.
    """
    images, texts = _prepare(images, texts, image_of_text)
    blocks = torch.split(torch.unique(image_of_text), BLOCK)
    return torch.cat([_best_own(images[block] @ texts.T, block[:, None] == image_of_text) for block in blocks])


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


def retrieval_recall(
    images: ImageRows, texts: TextRows, image_of_text: Labels, ks: Sequence[int] = (1, 5, 10)
) -> Retrieval:
    """Return recall@k from texts to images and from images to texts.

    ``image_of_text[t]`` is the row of the image that caption ``t`` belongs to. Embeddings need not be
    normalised. All images and all captions given are candidates.

    Raises:
        InputError: where there is nothing to retrieve, or the indices do not fit the embeddings.
    """
    check_ks(tuple(ks))
    if not len(texts):
        raise InputError("there is no caption to retrieve with; give at least one text and one image.")
    forward = text_to_image_ranks(images, texts, image_of_text)
    back = image_to_text_ranks(images, texts, image_of_text)
    return Retrieval(tuple(ks), _recall(forward, ks), _recall(back, ks))


def _recall(found: Int[Tensor, " queries"], ks: Sequence[int]) -> tuple[float, ...]:
    return tuple((found <= k).double().mean().item() for k in ks)


def _prepare(
    images: ImageRows, texts: TextRows, image_of_text: Labels
) -> tuple[Float[Tensor, "images dim"], Float[Tensor, "texts dim"]]:
    if images.shape[1] != texts.shape[1]:
        raise InputError(
            f"images have {images.shape[1]} dimensions and texts {texts.shape[1]}; both must come from one model."
        )
    if len(texts) != len(image_of_text):
        raise InputError(
            f"there must be one image index for each text, but {len(texts)} texts and {len(image_of_text)} indices."
        )
    check_labels(image_of_text, len(images), "image_of_text")
    if bool((image_of_text == IGNORE).any()):
        raise InputError(f"image_of_text holds {IGNORE}; leave texts without an image out.")
    return normalize(images.float(), dim=1), normalize(texts.float(), dim=1)
