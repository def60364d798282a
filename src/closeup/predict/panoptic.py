"""Things and stuff of one picture, told apart: a proposer outlines, CLIP looks at each outline, both say what it is."""

from __future__ import annotations

from collections.abc import Collection

import PIL.Image
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from closeup._types import Embeddings, ImageLike
from closeup.data.images import open_image
from closeup.errors import InputError, suggest
from closeup.heads.mask_proposer import MaskProposer
from closeup.match import score, word_weights
from closeup.match.mask_words import open_panoptic
from closeup.match.panoptic_merge import merge
from closeup.models.clip import Clip
from closeup.models.encode_regions import MASKED, MASKED_CROPS, check_batch_size
from closeup.models.routes import Route
from closeup.predict.panoptic_parts import Parts, proposed_parts
from closeup.predict.panoptic_result import PanopticResult
from closeup.predict.provenance import as_size, describe
from closeup.predict.scorers import Tell
from closeup.predict.segment_masks import novel_marks, own_bank
from closeup.predict.words import Words, as_bank
from closeup.text import Templates, Vocabulary

LOOKS = ("dense", *MASKED)
"""How CLIP looks at a mask."""
WEIGHT, NOVEL_WEIGHT = 0.35, 0.65
"""CLIP's share in the score of a word that the proposer learned, and of one that it did not: ODISE's with captions."""
THRESHOLD = 0.5
"""The score that a segment must exceed."""
OVERLAP = 0.8
"""The share of its own pixels that a mask must keep: MaskFormer's."""
APART = ("components", "whole")
"""Whether the parts of a mask that do not hang together are masks of their own."""
SMALLEST = 1e-3
"""The share of the picture below which a part is left out."""


@torch.inference_mode()
def panoptic(
    clip: Clip,
    proposer: MaskProposer,
    image: ImageLike,
    words: Words,
    *,
    things: Collection[str] | None = None,
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
    on_progress: Tell | None = None,
) -> PanopticResult:
    """Return the segments of an image: each thing one, each stuff one, from a proposer's masks and CLIP's view of them.

    The proposer's probabilities ``p`` of a mask and CLIP's ``q``, both over the words alone, are fused to
    ``p^(1-w) q^w``, which share what no object leaves them (``match.mask_words.open_panoptic``); then masks are merged
    to segments (``match.panoptic_merge``).

    A proposer that is trained in OVSeg's way has one mask a word, all things of the word together. So, with ``apart``
    as "components", the parts of a mask that do not hang together are looked at and named one by one; things that
    touch stay one, and a thing that another cuts in two is two. Parts of stuff are joined again when they are merged.

    Nor has it a mask for a thing that it did not learn: it leaves a hole there. So, with ``gaps``, the parts of the
    picture that no mask claims are looked at as well, and CLIP alone names them.

    Args:
        clip: Says what a mask shows; best adapted to regions.
        proposer: Outlines things and grounds, and says what they are in its own way.
        image: The image.
        words: Whichever words.
        things: Those of the words that are things (None: all); the others are stuff.
        how: How CLIP looks at a mask: any region encoder that takes masks.
        weight: CLIP's share ``w`` for words that the proposer learned, under any of their synonyms.
        novel_weight: Its share for the other words.
        threshold: The score that a segment must exceed.
        overlap: The share of its own pixels that a mask must keep, or it is dropped and others have them.
        apart: "components", or "whole" for a proposer that outlines things one by one.
        gaps: Whether what no mask claims is named too.
        smallest: The share of the picture below which a part is left out.
        templates: Name of a template set or the set itself (None: "simple", or those of the bank).
        route: How the last block is replaced in the dense map.
        size: As in ``encode_regions`` (None: the proposer's for the dense map, else the native one).
        batch: Parts that are cut out and encoded at a time.
        on_progress: Told how many parts CLIP has looked at, and of how many.

    Raises:
        InputError: a setting outside its range, things that are none of the words, prompts of a CLIP that has none, or
            what is no image.
        ModelError: ``mask-token`` of a model without a class token.

    Source: ODISE (arXiv 2303.04803), ``NVlabs/ODISE`` ``odise/modeling/meta_arch/odise.py``: there masks come from a
    diffusion model's features, instance by instance, without gaps. ``dense`` is how CLIPSelf (arXiv 2310.01403) reads
    masks.
    """
    shares = {"weight": weight, "novel_weight": novel_weight, "threshold": threshold, "overlap": overlap}
    _check(how, apart, {**shares, "smallest": smallest})
    check_batch_size(batch)
    bank = as_bank(clip, words, templates)
    marks = thing_marks(bank.vocabulary, things)
    picture = open_image(image)
    original = (picture.height, picture.width)
    found = proposed_parts(
        proposer,
        picture,
        own_bank(proposer.clip, clip, bank),
        threshold=threshold,
        connected=apart == "components",
        smallest=smallest,
        gaps=gaps,
    )
    looked = proposer.size if size is None and how == "dense" else size
    seen = _seen(clip, picture, found, how, route, looked, batch, on_progress)
    power = word_weights(novel_marks(proposer, bank.vocabulary), base_weight=weight, novel_weight=novel_weight)
    probabilities = _fused(found, clip.logit_scale * score(seen, bank.to(clip.device)).cpu(), power)
    merged = merge(probabilities, found.loud, found.size, marks, threshold=threshold, overlap=overlap)
    places = merged.places
    if found.size != original:
        places = F.interpolate(places[None, None].double(), original, mode="nearest-exact")[0, 0].long()
    made = describe(
        clip,
        bank,
        region_encoder=how,
        route=route,
        image_size=as_size(clip, looked),
        proposer=proposer.name,
        apart=apart,
        gaps=gaps,
        smallest=smallest,
        **shares,
    )
    return PanopticResult(image, original, places, merged.labels, merged.scores, bank.names, marks, made)


def thing_marks(vocabulary: Vocabulary, things: Collection[str] | None) -> tuple[bool, ...]:
    """Return which of the words are things (None: all); InputError for a thing that is none of them."""
    if isinstance(things, str):
        raise InputError(f"things is the single text {things!r}. Give a list of words.")
    chosen = range(len(vocabulary)) if things is None else {vocabulary.index(name) for name in things}
    return tuple(label in chosen for label in range(len(vocabulary)))


def _fused(
    found: Parts, named: Float[Tensor, "parts words"], power: Float[Tensor, " words"]
) -> Float[Tensor, "parts columns"]:
    """Return the probabilities of all parts; the proposer has no word for gaps, nor calls them no object."""
    count = len(found.owner) - found.gaps
    fused = open_panoptic(found.words[found.owner[:count]], named[:count], power)
    return torch.cat([fused, F.pad(named[count:].float().softmax(dim=1), (0, 1))])


def _seen(
    clip: Clip,
    picture: PIL.Image.Image,
    found: Parts,
    how: str,
    route: str | Route,
    size: int | None,
    batch: int,
    on_progress: Tell | None,
) -> Embeddings:
    """Return what CLIP sees of each part."""
    height, width = found.size
    shown = picture if (picture.height, picture.width) == (height, width) else picture.resize((width, height))
    count = len(found.planes)
    step = batch if how in MASKED_CROPS else max(count, 1)
    parts = [torch.zeros(0, clip.dim, device=clip.device)]
    for start in range(0, count, step):
        some = found.planes[start : start + step]
        parts += clip.encode_regions(shown, masks=some, how=how, route=route, size=size, batch=batch)
        if on_progress is not None:
            on_progress(min(start + step, count), count)
    return torch.cat(parts)


def _check(how: str, apart: str, shares: dict[str, float]) -> None:
    if how not in LOOKS:
        raise InputError(f"Unknown way to look at a mask: {how!r}. {suggest(how, LOOKS)}")
    if apart not in APART:
        raise InputError(f"Unknown way to tell things apart: {apart!r}. {suggest(apart, APART)}")
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise InputError(f"{name} is {share}: give a number from 0 to 1.")
