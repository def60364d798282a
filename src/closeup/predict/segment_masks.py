"""A word for every pixel by way of masks: a proposer outlines, CLIP looks at each outline, both say what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import PIL.Image
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from closeup._types import Embeddings, Images
from closeup.data.record import Record
from closeup.errors import InputError, suggest
from closeup.geometry import Placement
from closeup.heads.mask_proposer import MaskProposer
from closeup.match import reduce_synonyms, score, word_weights
from closeup.match.mask_words import ensemble, paint
from closeup.models.clip import Clip
from closeup.models.mask_prompt import check_prompts, cut_out_view
from closeup.models.preprocess import Size, renormalised
from closeup.predict.provenance import Provenance, describe
from closeup.predict.scorers import Scores, Tell
from closeup.predict.words import as_bank
from closeup.regions.masked_crops import masked_crops
from closeup.regions.parts import connected_parts, opened
from closeup.text import TextBank, Vocabulary

WEIGHT = 0.7
"""CLIP's share in a score: OVSeg's for ADE20K; 0.6 for Pascal Context, 0.45 for VOC."""
THRESHOLD = 0.4
"""The probability above which a pixel is part of a mask: OVSeg's with ViT-L/14; 0.5 with ViT-B/16."""
LOOKS = ("mask-prompt", "masked-crop")
"""How CLIP looks at a mask."""
LIMIT = 200
"""Parts of a picture that count, the largest of them; and as many gaps."""
THIN = 0.012
"""Of the shorter side of the picture: half of the width below which a gap is a seam between masks."""
SMALLEST = 1e-3
"""The share of the picture below which a gap is left out."""
BUDGET = 2**27
"""Scores of words at places that exist at once; above it they are painted as coarse as the masks are."""


@dataclass(frozen=True, slots=True, eq=False)
class Outlined:
    """What a proposer found in one picture, on the part of its canvas that shows it.

    ``logits`` are the masks' at the size that the picture has there, ``coarse`` those that they come from; ``words``
    the proposer's table with no object last.
    """

    image: Float[Tensor, "3 height width"]
    logits: Float[Tensor, "masks height width"]
    coarse: Float[Tensor, "masks rows cols"]
    words: Float[Tensor, "masks columns"]


@dataclass(frozen=True, slots=True)
class OvSegScorer:
    """Words by way of a proposer's masks and what two models say of each (OVSeg).

    The proposer's probabilities ``p`` of a mask and CLIP's ``q``, which sees it cut out, are fused to ``p^(1-w) q^w``,
    and each pixel sums its masks' scores, weighed by how much they cover it.

    Args:
        clip: Says what a masked crop shows; best adapted by ``maskadapt``.
        proposer: Outlines things and grounds, and says what they are in its own way.
        weight: CLIP's share ``w``; 0 is the proposer alone, 1 CLIP alone.
        novel_weight: Its share for words that the proposer did not learn (None: the same).
        threshold: The probability above which a pixel is part of a mask that is cut out.
        how: ``mask-prompt``, or ``masked-crop`` for a CLIP without prompts (None: whichever the CLIP has).
        gaps: Whether the parts of the picture that no mask covers are looked at as well, and named by CLIP alone: a
            proposer leaves holes where there is something that it did not learn. Not in the paper.
        batch: Crops that are encoded at a time.

    Raises:
        InputError: a setting outside its range, or prompts of a CLIP that has none.

    Source: OVSeg (arXiv 2210.04150), ``facebookresearch/ov-seg`` ``open_vocab_seg/ovseg_model.py``. Scores are
    brought to the original pixels from the canvas, as there.
    """

    clip: Clip
    proposer: MaskProposer
    weight: float = WEIGHT
    novel_weight: float | None = None
    threshold: float = THRESHOLD
    how: str | None = None
    gaps: bool = False
    batch: int = 32

    def __post_init__(self) -> None:
        shares = (self.weight, self.weight if self.novel_weight is None else self.novel_weight)
        if self.how is not None and self.how not in LOOKS:
            raise InputError(f"Unknown way to look at a mask: {self.how!r}. {suggest(self.how, LOOKS)}")
        if not all(0 <= share <= 1 for share in shares) or not 0 <= self.threshold < 1 or self.batch < 1:
            raise InputError(
                f"Weights of {shares}, a threshold of {self.threshold}, {self.batch} crops at a time: give 0 to 1, 0 "
                "to below 1, and 1 or more."
            )
        check_prompts(self.clip, self.how)

    @property
    def looks(self) -> str:
        """How CLIP looks at a mask."""
        return self.how or cut_out_view(self.clip)

    @torch.inference_mode()
    def score(
        self, record: Record, picture: PIL.Image.Image, bank: TextBank, on_progress: Tell | None = None
    ) -> Scores:
        """Return the scores of a picture on the part of the proposer's canvas that shows it."""
        below = self.proposer.clip
        canvas, placement = below.preprocess(picture, policy="longest-pad-corner", size=self.proposer.size)
        found = outlined(self.proposer, canvas[None], placement, own_bank(below, self.clip, bank))
        masks, coarse = found.logits.sigmoid(), found.coarse.sigmoid()
        planes, count = masks > self.threshold, len(masks)
        if self.gaps:
            rest = gaps_between(planes)
            planes = torch.cat([planes, rest])
            masks = torch.cat([masks, rest.to(masks)])
            coarse = torch.cat([coarse, F.interpolate(rest[None].to(coarse), coarse.shape[1:], mode="area")[0]])
        valid = planes.flatten(1).any(dim=1)
        logits = found.words.new_zeros(len(masks), len(bank))
        if self.weight > 0 or self.novel_weight or self.gaps:
            seen = renormalised(found.image[None], below.image_preprocess, self.clip.image_preprocess)[0]
            regions = looks(self.clip, seen, planes[valid], self.looks, self.batch, on_progress)
            logits[valid] = (self.clip.logit_scale * score(regions, bank.to(self.clip.device))).to(logits)
        shares = self._shares(bank).to(logits)
        fused = ensemble(found.words, logits[:count], shares, valid[:count])
        # Of a mask that CLIP never saw, CLIP alone has nothing to say.
        fused = fused.masked_fill(~valid[:count, None] & (shares == 1), 0.0)
        fused = torch.cat([fused, logits[count:].softmax(dim=1)])
        fine = len(bank) * masks[0].numel() <= BUDGET
        return Scores(paint(fused, masks if fine else coarse).cpu(), placement.canvas, None)

    def describe(self, bank: TextBank, canvas: Size, **settings: str | float | None) -> Provenance:
        """Return what makes a result."""
        return describe(
            self.clip,
            bank,
            region_encoder=self.looks,
            route=self.proposer.head.config.route,
            image_size=canvas,
            proposer=self.proposer.name,
            weight=self.weight,
            novel_weight=self.novel_weight,
            threshold=self.threshold,
            gaps=self.gaps,
            **settings,
        )

    def _shares(self, bank: TextBank) -> Float[Tensor, " words"]:
        if self.novel_weight is None:
            return torch.full((len(bank),), self.weight)
        marks = novel_marks(self.proposer, bank.vocabulary)
        return word_weights(marks, base_weight=self.weight, novel_weight=self.novel_weight)


def outlined(proposer: MaskProposer, canvas: Images, placement: Placement, bank: TextBank) -> Outlined:
    """Return the masks of one picture on its canvas, in the top left corner, and the proposer's words for them."""
    canvas = canvas.to(proposer.clip.device)
    found = proposer.head.find(canvas)
    logits = found.masks[0]
    height, width = (round(side) for side in (placement.content[3], placement.content[2]))
    rows, cols = (max(1, round(side * have / whole)) for side, have, whole in _sides(logits, canvas, (height, width)))
    fine = F.interpolate(logits[None], canvas.shape[2:], mode="bilinear", align_corners=False)[0, :, :height, :width]
    strings = proposer.head.logits(found.embeddings[0], bank.embeddings.to(logits.device))
    named = reduce_synonyms(strings[:, :-1], bank.owner.to(logits.device), len(bank))
    table = torch.cat([named, strings[:, -1:]], dim=1)
    return Outlined(canvas[0, :, :height, :width], fine, logits[:, :rows, :cols], table)


def gaps_between(
    planes: Bool[Tensor, "masks height width"], smallest: float = SMALLEST
) -> Bool[Tensor, "parts height width"]:
    """Return the connected parts of a picture that no mask covers, without the seams between masks.

    ``smallest`` is the share of the picture below which a part is left out.
    """
    height, width = planes.shape[1:]
    left = opened(~planes.any(dim=0, keepdim=True), round(THIN * min(height, width)))
    return connected_parts(left, smallest=max(1, round(smallest * height * width)), limit=LIMIT)[0].to(planes.device)


def novel_marks(proposer: MaskProposer, vocabulary: Vocabulary) -> tuple[bool, ...]:
    """Return which words the proposer learned under none of their synonyms."""
    return tuple(all(proposer.marks(strings)) for strings in vocabulary.synonyms)


def own_bank(mine: Clip, theirs: Clip, bank: TextBank) -> TextBank:
    """Return a bank as another CLIP's text tower has it: the same where the towers are."""
    return bank if mine.text_fingerprint == theirs.text_fingerprint else as_bank(mine, bank.vocabulary, bank.templates)


def looks(
    clip: Clip,
    image: Float[Tensor, "3 height width"],
    planes: Bool[Tensor, "masks height width"],
    how: str,
    batch: int,
    on_progress: Tell | None = None,
) -> Embeddings:
    """Return what CLIP sees of each mask of a picture, cut out as OVSeg cuts; L2-normalised."""
    parts = [torch.zeros(0, clip.dim, device=clip.device)]
    for start in range(0, len(planes), batch):
        crops, shown = masked_crops(image, planes[start : start + batch], clip.image_size)
        if how == "mask-prompt":
            parts.append(clip.encode_masked(crops, shown, normalize=True))
        else:
            parts.append(clip.encode_image(crops, normalize=True))
        if on_progress is not None:
            on_progress(min(start + batch, len(planes)), len(planes))
    return torch.cat(parts)


def _sides(logits: Tensor, canvas: Tensor, shown: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return for rows and columns: how many pixels show the picture, how many cells and pixels the canvas has."""
    return list(zip(shown, logits.shape[1:], canvas.shape[2:], strict=True))
