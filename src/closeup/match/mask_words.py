"""Words of masks: what a mask proposer and CLIP say of each mask, fused, and painted as a word for every pixel.

A proposer's table has one column more than there are words, the last: no object.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import log_softmax

from closeup.match.fusion import fuse


def no_object_apart(logits: Float[Tensor, "masks columns"]) -> Float[Tensor, "masks words"]:
    """Return the probabilities of words, the last column (no object) having taken its share.

    Source: MaskFormer (arXiv 2107.06278), semantic inference.
    """
    return logits.float().softmax(dim=1)[:, :-1]


def ensemble(
    proposer: Float[Tensor, "masks columns"],
    clip: Float[Tensor, "masks words"],
    weight: float | Float[Tensor, " words"],
    valid: Bool[Tensor, " masks"] | None = None,
) -> Float[Tensor, "masks words"]:
    """Return OVSeg's ``p^(1-w) q^w`` of masks: ``p`` with no object's share taken off, ``q`` of the words alone.

    Both are given as logits. Where ``valid`` is False CLIP saw no crop, and ``q`` counts as 1.

    Source: OVSeg (arXiv 2210.04150), ``facebookresearch/ov-seg`` ``open_vocab_seg/ovseg_model.py``. Its weight 0 stands
    for CLIP alone; here 0 is the proposer alone, and 1 CLIP alone.
    """
    return fuse(no_object_apart(proposer), clip.float().softmax(dim=1), weight, valid)


def open_panoptic(
    proposer: Float[Tensor, "masks columns"],
    clip: Float[Tensor, "masks words"],
    weight: float | Float[Tensor, " words"],
) -> Float[Tensor, "masks columns"]:
    """Return ODISE's probabilities of words and, last, of no object; each row sums to 1.

    Words share what no object leaves them in proportion to ``p^(1-w) q^w``, ``p`` and ``q`` over the words alone. Both
    are given as logits.

    Source: ODISE (arXiv 2303.04803), ``NVlabs/ODISE`` ``odise/modeling/meta_arch/odise.py``. There a probability that
    underflows gives NaN; here logarithms are fused.
    """
    power = torch.as_tensor(weight, dtype=torch.float32, device=proposer.device)
    head, seen = log_softmax(proposer[:, :-1].float(), dim=1), log_softmax(clip.float(), dim=1)
    shares = ((1 - power) * head + power * seen).softmax(dim=1)
    nothing = proposer.float().softmax(dim=1)[:, -1:]
    return torch.cat([shares * (1 - nothing), nothing], dim=1)


def paint(
    probabilities: Float[Tensor, "masks words"], masks: Float[Tensor, "masks height width"]
) -> Float[Tensor, "words height width"]:
    """Return each word's score at every place: the sum over masks, 0 to 1 at each place, of mask times probability.

    Zeros where there is no mask at all.
    """
    return torch.einsum("qw,qij->wij", probabilities, masks)
