"""The matchers behind the tables of fine-grained matching, all on tiny, which stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from closeup.recipes.run_finegrained import MatcherTraining, is_begun, train_matcher
from closeup.reproduce.measure import Counter
from closeup.reproduce.run import Wanted
from closeup.reproduce.trainings import RAW

SHIPPED = "tiny-finegrained"
"""What ships: a matcher that begins as the cosine and keeps its rankings of whole pictures."""

SHIPPED_LOOKING = f"{SHIPPED}-levels"
"""What ships besides: the same with details of tiny's levels, for crops by tiny alone."""

REGIONS, HELD, PAIRS = 20_000, 500, 6_000
"""Scenes whose things teach details, and tell the best weights; scenes whose captions are ranked."""
QUICK = 24
KEEPS = (0.0, 0.3, 1.0, 3.0, 10.0)
"""Weights of keeping the cosine's rankings."""
SHIPPED_KEEP = 1.0
LEVELS = (1, 3)
"""Blocks of tiny, of six, that matchers with details look at: a third and two thirds on."""


@dataclass(frozen=True, slots=True)
class MatcherMade:
    """One training of a matcher: the folder's name, the preset and what is changed of it."""

    name: str
    preset: str
    config: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    dtype: Literal["fp32", "fp16"] = "fp32"


def paper_training(kind: str, seed: int) -> MatcherMade:
    """Return the paper's two stages for a matching function."""
    return MatcherMade(f"finegrained-{kind}-{seed}", "tiny", {"kind": kind}, seed)


def softmax_training(kind: str, seed: int) -> MatcherMade:
    """Return the same with a softmax over the captions of a region in the place of the hinge."""
    return MatcherMade(f"finegrained-{kind}-softmax-{seed}", "tiny", {"kind": kind, "objective": "softmax"}, seed)


def keeping_training(kind: str, keep: float, seed: int) -> MatcherMade:
    """Return a matcher that begins as the cosine, with a weight of keeping its rankings."""
    return MatcherMade(f"finegrained-{kind}-keep{keep:g}-{seed}", "keep", {"kind": kind, "keep": keep}, seed)


def looking_inside(training: MatcherMade) -> MatcherMade:
    """Return a training with details of tiny's levels behind the embeddings of regions."""
    return replace(training, name=f"{training.name}-levels", config={**training.config, "levels": LEVELS})


def made_matcher(training: MatcherMade, wanted: Wanted, counter: Counter) -> str:
    """Train a matcher in ``wanted.work``, or go on where that was stopped, and return its folder."""
    out = wanted.work / training.name
    regions, held, pairs = (QUICK, QUICK, QUICK) if wanted.quick else (REGIONS, HELD, PAIRS)
    train_matcher(
        MatcherTraining(
            regions=f"world?negatives=1_attributes&count={regions}",
            pairs=f"world?count={pairs}",
            held=f"world?negatives=1_attributes&count={held}&split=val",
            model=RAW,
            preset=training.preset,
            config=training.config,
            training={"seed": training.seed, **({"steps": 4, "evaluate_every": 2} if wanted.quick else {})},
            features=wanted.work / "features",
            dtype=training.dtype,
        ),
        out,
        resume=is_begun(out),
        watch=counter,
    )
    return str(out)


def warmed_up(folder: str) -> str:
    """Return where a training keeps its matcher as it was after the warm-up."""
    return str(Path(folder + "-run") / "warmed-up")


def shipped_training() -> MatcherMade:
    """Return the training of the matcher that ships."""
    kept = keeping_training("residual-mlp", SHIPPED_KEEP, 0)
    return MatcherMade(SHIPPED, kept.preset, kept.config, dtype="fp16")
