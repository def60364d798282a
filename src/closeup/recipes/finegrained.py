"""Fine-grained matching: a matcher learns on a frozen CLIP's embeddings, first what belongs together, then details.

    warm-up      L = sum_{i != j} [m + S_ij - S_ii]+ + [m + S_ij - S_jj]+     pictures i, captions j, m = 0.2
    fine-tuning  L = sum_b sum_{j >= 1} [m + s_bj - s_b0]+                    regions b, wrong captions j, m = 0.05

Source: Bianchi et al., "Is CLIP the main roadblock for fine-grained open-world perception?" (CBMI 2024);
``lorebianchi98/FG-CLIP`` ``src/loss.py``, ``src/train_util.py``. We divide each sum by the pictures of a batch, which
Adam does not notice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import PartialState
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor, nn

from closeup.data.atomic import replacing
from closeup.errors import CloseupError
from closeup.evaluate.fine_grained import rank_captions
from closeup.match.losses import own_negatives_loss, triplet_loss
from closeup.match.matcher import Matcher
from closeup.match.matchers import new_matcher
from closeup.models.disk import write_tensors
from closeup.recipes.features import Features
from closeup.recipes.finegrained_config import FineGrainedConfig
from closeup.recipes.gather import gather
from closeup.recipes.order import visited
from closeup.recipes.recipe import Batch, Recipe

BEST = "best.safetensors"
"""The weights of the best validation rank, beside the log."""
EVALUATED = 1024
"""Items that are scored at a time in evaluation."""


class MatcherRecipe(Recipe):
    """What both stages share: every parameter of a matcher learns, from items of embeddings that are on disk.

    Args:
        matcher: What learns.
        learned: The items to learn from.
        held: Regions with wrong captions that their rank is measured on.
        config: The losses' settings.
        seed: Of the order.
        best: A folder that keeps the weights of the best rank; None keeps none.
    """

    name = "finegrained"

    def __init__(
        self,
        matcher: Matcher,
        learned: Features,
        held: Features,
        config: FineGrainedConfig,
        *,
        seed: int = 0,
        best: Path | None = None,
    ) -> None:
        self.matcher, self.learned, self.held, self.config = matcher, learned, held, config
        self._seed, self._best = seed, best

    def trainable(self) -> Mapping[str, nn.Parameter]:
        """Return all parameters of the matcher."""
        return dict(self.module.named_parameters())

    def evaluate(self) -> dict[str, float]:
        """Return the mean rank of right captions on what is held out, and keep the weights where it is the best yet."""
        rank = mean_rank(self.matcher, self.held)
        if self._best is not None and PartialState().is_main_process and rank < best_rank(self._best):
            _keep_best(self.matcher, self._best, rank)
        return {"rank": rank}


class WarmUp(MatcherRecipe):
    """Stage one: whole pictures and their captions, the others of the batch for contrast."""

    name = "finegrained-pairs"
    divisible = False

    def __init__(
        self, matcher: Matcher, learned: Features, held: Features, config: FineGrainedConfig, *, seed: int = 0
    ) -> None:
        super().__init__(matcher, learned, held, config, seed=seed)
        self.module = _Pairs(matcher, config)

    def sample(self, position: int) -> int:
        """Return the pair to learn from at a position."""
        return visited(position, len(self.learned), self._seed)

    def collate(self, samples: Sequence[int]) -> Batch:
        """Return the embeddings of some pairs."""
        return self.learned.take(samples)


class FineTune(MatcherRecipe):
    """Stage two: regions, each against wrong captions of its own; ``pairs`` are what ``keep`` keeps ranked."""

    def __init__(
        self,
        matcher: Matcher,
        learned: Features,
        held: Features,
        config: FineGrainedConfig,
        *,
        pairs: Features | None = None,
        seed: int = 0,
        best: Path | None = None,
    ) -> None:
        super().__init__(matcher, learned, held, config, seed=seed, best=best)
        self.pairs = pairs if config.keep else None
        self.divisible = self.pairs is None
        self.module = _Details(matcher, config, cosine_like(matcher))

    def sample(self, position: int) -> tuple[int, int]:
        """Return the region to learn from at a position, and the pair to keep."""
        kept = 0 if self.pairs is None else visited(position, len(self.pairs), self._seed + 1)
        return visited(position, len(self.learned), self._seed), kept

    def collate(self, samples: Sequence[tuple[int, int]]) -> Batch:
        """Return the embeddings of some regions and of some pairs."""
        batch = self.learned.take([item for item, _ in samples])
        if self.pairs is not None:
            kept = self.pairs.take([pair for _, pair in samples])
            batch |= {"whole": kept["images"], "said": kept["captions"][:, 0]}
        return batch


class _Pairs(nn.Module):
    def __init__(self, matcher: Matcher, config: FineGrainedConfig) -> None:
        super().__init__()
        self.matcher, self._config = matcher, config

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        # Every picture of the global batch meets every caption of it; nothing before the matcher learns.
        scores = self.matcher(gather(batch["images"]), gather(batch["captions"][:, 0]))
        loss = triplet_loss(scores, margin=self._config.pair_margin, hardest=self._config.hardest)
        return {"loss": loss / len(scores)}


class _Details(nn.Module):
    def __init__(self, matcher: Matcher, config: FineGrainedConfig, cosine: Matcher) -> None:
        super().__init__()
        self.matcher, self._config, self._cosine = matcher, config, cosine

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        config = self._config
        scores = self.matcher.of_own(batch["images"], batch["captions"], config.normalisation)
        if config.objective == "softmax":
            sharp = config.sharpness / self.matcher.slope * scores
            loss = F.cross_entropy(sharp, scores.new_zeros(len(scores), dtype=torch.long))
        else:
            loss = own_negatives_loss(scores, margin=config.margin, hardest=config.hardest) / len(scores)
        if "whole" not in batch:
            return {"loss": loss}
        whole, said = gather(batch["whole"]), gather(batch["said"])
        scores = self.matcher(whole, said) / self.matcher.slope
        moved = ranking_moved(scores, self._cosine(whole, said), config.sharpness)
        return {"loss": loss + config.keep * moved, "details": loss.detach(), "moved": moved.detach()}


def ranking_moved(
    scores: Float[Tensor, "pictures texts"], before: Float[Tensor, "pictures texts"], sharpness: float
) -> Float[Tensor, ""]:
    """Return how far rankings are from what they were: the divergence of their softmaxes, over texts and pictures.

    0 where scores are what they were, up to a constant. It is the mean over rows plus the mean over columns of the
    Kullback-Leibler divergence, in nats.
    """
    now, then = sharpness * scores, sharpness * before
    rows, columns = (
        F.kl_div(now.log_softmax(dim), then.log_softmax(dim), log_target=True, reduction="sum") / now.shape[1 - dim]
        for dim in (1, 0)
    )
    return rows + columns


def cosine_like(matcher: Matcher) -> Matcher:
    """Return the cosine of what a matcher is given, of embeddings without their details."""
    return new_matcher("cosine", matcher.dim, seen=matcher.seen)


@torch.no_grad()
def mean_rank(matcher: Matcher, held: Features) -> float:
    """Return the mean rank of the right caption among all captions of each item; 1 is the best, ties count against."""
    return rank_captions(list(held_scores(matcher, held)), held.wrong).mean


@torch.no_grad()
def held_scores(matcher: Matcher, held: Features, limit: int | None = None) -> Float[Tensor, "items captions"]:
    """Return the scores of the captions of each item, or of the first ``limit``, on the CPU."""
    device = matcher.like(torch.zeros(0)).device
    count = len(held) if limit is None else min(limit, len(held))
    parts = []
    for first in range(0, count, EVALUATED):
        batch = held.take(range(first, min(first + EVALUATED, count)))
        parts.append(matcher.of_own(batch["images"].to(device), batch["captions"].to(device)).cpu())
    return torch.cat(parts)


def best_rank(folder: Path) -> float:
    """Return the rank of the best weights that a folder keeps; infinity where there are none."""
    if not (folder / BEST).is_file():
        return float("inf")
    with safe_open(folder / BEST, framework="pt") as stored:
        return float(stored.metadata()["rank"])


def _keep_best(matcher: Matcher, folder: Path, rank: float) -> None:
    state = {name: tensor.detach().cpu() for name, tensor in matcher.state_dict().items()}
    try:
        with replacing(folder / BEST) as fresh:
            write_tensors(state, fresh, {"rank": repr(rank)})
    except OSError as error:
        raise CloseupError(
            f"Cannot write the best weights to {folder}: {error.strerror or error}. Those before them are untouched; "
            "free some space, then resume."
        ) from error
