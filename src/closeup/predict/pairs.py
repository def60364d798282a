"""Mask-noun pairs of pictures: of the proposals the one that a CLIP finds most like a noun, or what annotators marked.

    n = a noun of the captions            e_n = CLIP's text embedding of a sentence with it
    m = a proposed mask                   e_m = CLIP's embedding of the mask cut out, its surroundings blank
    pair of n = (n, argmax_m cos(e_n, e_m))

Source: Liang et al., OVSeg, CVPR 2023 (arXiv 2210.04150), section 3.2; its code was not published.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import PIL.Image
import torch
from jaxtyping import Float, Int
from torch import Tensor

from closeup._types import IGNORE, Embeddings, Masks
from closeup.data.pairs import Pair, cut_pair
from closeup.data.prefetch import prefetched
from closeup.data.record import Reader, Record
from closeup.errors import DataError, InputError, suggest
from closeup.match import cosine
from closeup.models.clip import Clip
from closeup.models.encode_regions import MASKED
from closeup.models.mask_prompt import check_prompts
from closeup.predict.mask_sources import MaskSource, labelled
from closeup.text import Templates, Vocabulary, build_bank
from closeup.text.concepts import ConceptMiner

Found = TypeVar("Found")

AHEAD = 2
"""Pictures that are read at a time, ahead of the model."""


@dataclass(frozen=True, slots=True)
class Mined:
    """What one picture gave: its pairs, or that it could not be used."""

    pairs: tuple[Pair, ...] = ()
    left_out: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class NounTexts:
    """Text embeddings of nouns, each made when it first comes up; L2-normalised, on the CLIP's device."""

    clip: Clip
    templates: str | Templates = "simple"
    _known: dict[str, Float[Tensor, " dim"]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of nouns that have come up."""
        return len(self._known)

    def __call__(self, nouns: Sequence[str]) -> Embeddings:
        """Return one embedding a noun."""
        for noun in nouns:
            if noun not in self._known:
                # Not kept on disk: there would be a file for every noun.
                bank = build_bank(self.clip, Vocabulary([noun]), templates=self.templates, cache=False)
                self._known[noun] = bank.embeddings[0].to(self.clip.device)
        return torch.stack([self._known[noun] for noun in nouns])


@dataclass(frozen=True, slots=True)
class PairPolicy:
    """How nouns are found and given masks.

    Raises:
        InputError: a value outside its range.
    """

    captions: int = 1
    """Captions of a picture whose nouns are taken, from the first on: 1 or 5 in the paper."""
    least: float = -1.0
    """The least cosine between a noun and its mask."""
    how: str = "masked-crop"
    """The region encoder: ``masked-crop``, or ``mask-prompt`` for a CLIP that has learned to."""
    templates: str = "simple"
    """The sentences around a noun."""
    only: frozenset[str] | None = None
    """The nouns that are taken, all others passed over; None for whichever come up."""
    batch: int = 8
    """As in ``encode_regions``: an eighth of the crops that are encoded at a time."""

    def __post_init__(self) -> None:
        if self.captions < 1 or self.batch < 1:
            raise InputError(f"{self.captions} captions, batches of {self.batch}: give 1 or more.")
        if not -1 <= self.least <= 1:
            raise InputError(f"A least cosine of {self.least}: give -1 to 1.")
        if self.how not in MASKED:
            raise InputError(f"Unknown way to look at a mask: {self.how!r}. {suggest(self.how, MASKED)}")


def mine_pairs(
    reader: Reader,
    source: MaskSource,
    clip: Clip,
    miner: ConceptMiner,
    policy: PairPolicy = PairPolicy(),
    *,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[Mined]:
    """Yield the pairs of the records ``start`` to ``stop`` in their order, one pair a noun.

    A picture that cannot be read, or has no masks where they should be, is left out with a warning. Only the pictures
    at work are in memory; what a picture gives does not depend on the others.
    """
    texts = NounTexts(clip, policy.templates)
    # What is wrong with the settings is no fault of a picture.
    texts(miner.nouns(["a dog"]))
    check_prompts(clip, policy.how)

    def find(record: Record, picture: PIL.Image.Image) -> tuple[list[str], Masks | None]:
        nouns = miner.nouns(record.captions[: policy.captions])
        nouns = [noun for noun in nouns if policy.only is None or noun in policy.only]
        # Nothing is proposed where nothing is named.
        return nouns, source(record, picture).masks if nouns else None

    def pair(record: Record, picture: PIL.Image.Image, found: tuple[list[str], Masks | None]) -> Iterator[Pair]:
        nouns, masks = found
        if masks is None or not len(masks):
            return
        best, scores = assign(clip, picture, masks, texts(nouns), how=policy.how, batch=policy.batch)
        for noun, place, score in zip(nouns, best.tolist(), scores.tolist(), strict=True):
            if score >= policy.least:
                yield cut_pair(picture, masks[place], noun, source=record.id, score=score)

    return _each(reader, find, pair, start, stop)


def labelled_pairs(reader: Reader, *, start: int = 0, stop: int | None = None) -> Iterator[Mined]:
    """Yield a pair for every labelled mask of the records, its name the noun; label maps give a mask a label."""

    def find(record: Record, picture: PIL.Image.Image) -> tuple[Masks, list[int]]:
        del picture
        known = labelled(record)
        if known.masks is None or known.labels is None:
            raise DataError(f"Record {record.id!r} has masks without labels. Give a data set that names them.")
        return known.masks, known.labels.tolist()

    def pair(record: Record, picture: PIL.Image.Image, found: tuple[Masks, list[int]]) -> Iterator[Pair]:
        for mask, label in zip(*found, strict=True):
            if label != IGNORE and bool(mask.any()):
                yield cut_pair(picture, mask, reader.names[label], source=record.id)

    return _each(reader, find, pair, start, stop)


@torch.inference_mode()
def assign(
    clip: Clip,
    picture: PIL.Image.Image,
    masks: Masks,
    nouns: Float[Tensor, "nouns dim"],
    *,
    how: str = "masked-crop",
    batch: int = 8,
) -> tuple[Int[Tensor, " nouns"], Float[Tensor, " nouns"]]:
    """Return for each noun's text embedding the mask that looks most like it, and their cosine.

    Masks, at least one and none empty, are cut out as OVSeg cuts (``regions.masked_crops``).
    """
    (regions,) = clip.encode_regions(picture, masks=masks, how=how, batch=batch)
    best = cosine(nouns, regions).max(dim=1)
    return best.indices.cpu(), best.values.cpu()


def _each(
    reader: Reader,
    find: Callable[[Record, PIL.Image.Image], Found],
    pair: Callable[[Record, PIL.Image.Image, Found], Iterator[Pair]],
    start: int,
    stop: int | None,
) -> Iterator[Mined]:
    """Yield what is paired of what is found in each picture; a picture that is not what it should be is left out."""
    count = len(reader) if stop is None else min(stop, len(reader))

    def read(offset: int) -> tuple[Record, PIL.Image.Image] | InputError:
        try:
            record = reader[start + offset]
            return record, record.load()
        except InputError as error:
            return error

    for opened in prefetched(read, max(count - start, 0), AHEAD):
        try:
            if isinstance(opened, InputError):
                raise opened
            found = find(*opened)
        except InputError as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
            yield Mined(left_out=True)
        else:
            yield Mined(tuple(pair(*opened, found)))
