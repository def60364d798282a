"""RegionCLIP's losses between regions and concepts: pseudo labels, contrast, distillation; and nouns as labels.

With region embeddings ``v``, concept embeddings ``c`` (all of length one) and the temperature ``T``:

    q_r  = softmax_c(cos(v_r of the teacher, c) / T),   label of r = argmax q_r,   kept where max q_r > threshold
    L_con  = - mean_r log  sum over s with label(s) = label(r) of softmax_s(cos(v_r, c_label(s)) / T)
    L_dist = mean_r KL(q_r || softmax_c(cos(v_r of the student, c) / T))

Source: Zhong et al., RegionCLIP, CVPR 2022 (arXiv 2112.09106); ``microsoft/RegionCLIP``
``modeling/meta_arch/clip_rcnn.py``, ``utils/comm.py``. The third loss, between whole images and captions, is
``recipes.contrastive``. The official distillation takes the logarithm of a softmax, which is infinite where the
student gives a concept a probability below 1e-45; here it is a log-softmax.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, kl_div, normalize, one_hot

TEMPERATURE = 0.01
"""``MODEL.CLIP.CLSS_TEMP`` and ``PRETRAINING`` configurations of the official code."""

THRESHOLD = 0.1
"""The teacher's probability above which a region is kept (``MODEL.CLIP.CONCEPT_THRES``)."""

FEDERATED = 100
"""Nouns against which noun labels are learned (``wusize/CLIPSelf`` ``training/region_clip.py``)."""


@dataclass(frozen=True, slots=True, eq=False)
class PseudoLabels:
    """What a teacher says that regions show.

    ``rows`` are the regions kept, ``labels`` the concept of each of them, ``probabilities`` those of all concepts.
    """

    rows: Int[Tensor, " kept"]
    labels: Int[Tensor, " kept"]
    probabilities: Float[Tensor, "kept concepts"]


@torch.no_grad()
def pseudo_labels(
    regions: Float[Tensor, "regions dim"],
    concepts: Float[Tensor, "concepts dim"],
    *,
    temperature: float = TEMPERATURE,
    threshold: float = THRESHOLD,
) -> PseudoLabels:
    """Return the concept of each region of which a teacher is sure; of all regions where it is sure of none.

    Embeddings may have any length. ``threshold`` is a probability, which has to be exceeded.
    """
    probabilities = (normalize(regions, dim=1) @ normalize(concepts, dim=1).T / temperature).softmax(dim=1)
    best, labels = probabilities.max(dim=1)
    kept = best > threshold
    rows = (kept if bool(kept.any()) else torch.ones_like(kept)).nonzero()[:, 0]
    return PseudoLabels(rows, labels[rows], probabilities[rows])


def concept_contrast(
    regions: Float[Tensor, "kept dim"],
    labels: Int[Tensor, " kept"],
    concepts: Float[Tensor, "keys dim"],
    concept_labels: Int[Tensor, " keys"],
    *,
    temperature: float = TEMPERATURE,
) -> Float[Tensor, ""]:
    """Return the contrastive loss of regions against the concepts of all kept regions, equal ones all positive.

    ``concepts`` are the embeddings of ``concept_labels``: those of the regions themselves, as in the official code,
    where the regions of one device are compared with each other, or of the regions of all devices. Every label must
    be among them. Embeddings may have any length. Zero where there is no region.
    """
    if not len(regions):
        return regions.sum()
    logs = (normalize(regions, dim=1) @ normalize(concepts, dim=1).T / temperature).log_softmax(dim=1)
    positive = labels[:, None] == concept_labels[None, :]
    return -logs.masked_fill(~positive, float("-inf")).logsumexp(dim=1).mean()


def concept_distillation(
    regions: Float[Tensor, "kept dim"],
    concepts: Float[Tensor, "concepts dim"],
    probabilities: Float[Tensor, "kept concepts"],
    *,
    temperature: float = TEMPERATURE,
) -> Float[Tensor, ""]:
    """Return the mean KL divergence of the student's concepts of regions from the teacher's ``probabilities``.

    Embeddings may have any length. Zero where there is no region.
    """
    if not len(regions):
        return regions.sum()
    logs = (normalize(regions, dim=1) @ normalize(concepts, dim=1).T / temperature).log_softmax(dim=1)
    return kl_div(logs, probabilities, reduction="batchmean")


def federated_nouns(
    labels: Int[Tensor, " regions"], count: int, *, drawn: int = FEDERATED, generator: torch.Generator | None = None
) -> Int[Tensor, " nouns"]:
    """Return the nouns that a step learns against, of ``count``: all its labels, ascending, then others at random.

    ``drawn`` nouns in all, or as many as there are labels, or nouns, where that is more, or fewer.
    """
    present: Int[Tensor, " present"] = labels.unique()
    others = torch.ones(count, device=labels.device)
    others[present] = 0
    lacking = min(drawn, count) - len(present)
    if lacking <= 0:
        return present
    return torch.cat([present, torch.multinomial(others, lacking, generator=generator)])


def noun_loss(
    regions: Float[Tensor, "regions dim"],
    nouns: Float[Tensor, "nouns dim"],
    labels: Int[Tensor, " regions"],
    scale: Float[Tensor, ""],
    columns: Int[Tensor, " drawn"],
) -> Float[Tensor, ""]:
    """Return the binary cross-entropy of regions against nouns in ``columns``, summed over nouns, mean over regions.

    The noun-label baseline of CLIPSelf's Table 6. ``scale`` is the inverse temperature, which learns nothing here.
    Embeddings may have any length. Zero where there is no region.

    Source: ``wusize/CLIPSelf`` ``training/region_clip.py`` (RegionCLIP).
    """
    if not len(regions):
        return regions.sum()
    logits = scale.detach() * normalize(regions, dim=1) @ normalize(nouns, dim=1).T
    wanted = one_hot(labels, len(nouns)).to(logits.dtype)
    losses = binary_cross_entropy_with_logits(logits[:, columns], wanted[:, columns], reduction="none")
    return losses.sum(dim=1).mean()
