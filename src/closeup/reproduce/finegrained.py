"""Fine-grained matching: the paper's tables on the world, what keeps retrieval, and what asks: detector or CLIP?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from closeup.match.matcher import Matcher
from closeup.match.matcher_file import load_matcher
from closeup.match.matchers import new_matcher
from closeup.match.mixed import MixedMatcher
from closeup.reproduce import finegrained_tables as tables
from closeup.reproduce.detection_models import DETECTOR, SEEDS
from closeup.reproduce.finegrained_models import (
    HELD,
    KEEPS,
    LEVELS,
    PAIRS,
    REGIONS,
    SHIPPED,
    SHIPPED_KEEP,
    SHIPPED_LOOKING,
    MatcherMade,
    keeping_training,
    looking_inside,
    made_matcher,
    paper_training,
    shipped_training,
    softmax_training,
    warmed_up,
)
from closeup.reproduce.finegrained_paper import COSINE_ROW, FINE, KINDS, WARM
from closeup.reproduce.finegrained_pictures import kept_curve, segment_twins
from closeup.reproduce.measure import LOT, Measurements, Scale
from closeup.reproduce.run import Found, Part, Reproduction, Wanted

QUICK = Scale(scenes=4, trend_scenes=3, size=64, workers=0)
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Of the fine-tuned MLP in mixtures with the cosine."""
REFERENCE = f"MLP, {FINE}"
SOFTMAX = ("linear on both", "MLP")
"""What learns with a softmax besides."""

_LEARNED = (
    f"Matchers learn from tiny's embeddings of the things of {REGIONS:,} scenes, each with ten captions that are wrong "
    f"in one attribute, after a warm-up on {PAIRS:,} whole scenes with five captions each; the best of ten epochs on "
    f"the things of {HELD} others. Measured on {{scale.scenes}} scenes of the split test. "
)
_RETRIEVED = f"Recall in percent, whole scenes and their captions among {LOT}, the mean over lots."


def _made(training: MatcherMade, wanted: Wanted, measured: Measurements) -> Matcher:
    return load_matcher(made_matcher(training, wanted, measured.counter))


def _paper_rows(wanted: Wanted, measured: Measurements) -> dict[str, list[Matcher | None]]:
    """Return the paper's matchers, after the warm-up and after fine-tuning, and two that learned with a softmax."""
    seeds = SEEDS[:2] if wanted.quick else SEEDS
    rows: dict[str, list[Matcher | None]] = {COSINE_ROW: [None]}
    for row, kind in KINDS.items():
        folders = [made_matcher(paper_training(kind, seed), wanted, measured.counter) for seed in seeds]
        rows[f"{row}, {WARM}"] = [load_matcher(warmed_up(folder)) for folder in folders]
        rows[f"{row}, {FINE}"] = [load_matcher(folder) for folder in folders]
    for row in SOFTMAX:
        made = [_made(softmax_training(KINDS[row], seed), wanted, measured) for seed in seeds]
        rows[f"{row}, {FINE} with a softmax"] = list(made)
    return rows


def _matchers(wanted: Wanted, measured: Measurements) -> Found:
    rows, findings = tables.matched(measured, _paper_rows(wanted, measured))
    return Found(rows, findings, {})


def _benchmarks(wanted: Wanted, measured: Measurements) -> Found:
    rows, findings = tables.by_benchmark(measured, _paper_rows(wanted, measured))
    return Found(rows, findings, {})


def _kept(wanted: Wanted, measured: Measurements) -> Found:
    seeds = SEEDS[:2] if wanted.quick else SEEDS
    paper = [_made(paper_training("mlp", seed), wanted, measured) for seed in seeds]
    cosine = new_matcher("cosine", inputs=paper[0].inputs)
    mixed = {f"{share:g} of the MLP": [MixedMatcher(cosine, paper[0], share)] for share in SHARES}
    kept = {
        f"from the cosine on, kept by {keep:g}": [
            _made(keeping_training("residual-mlp", keep, seed), wanted, measured)
            for seed in (seeds if keep == SHIPPED_KEEP else seeds[:1])
        ]
        for keep in KEEPS
    }
    linear = {
        f"the same, linear, kept by {SHIPPED_KEEP:g}": [
            _made(keeping_training("residual", SHIPPED_KEEP, seed), wanted, measured) for seed in seeds
        ]
    }
    rows, findings = tables.kept(
        measured, {COSINE_ROW: [None], REFERENCE: list(paper), **mixed, **kept, **linear}, REFERENCE
    )
    plot = kept_curve(rows, list(mixed), list(kept), [f"{each:g}" for each in SHARES], [f"{each:g}" for each in KEEPS])
    return Found(rows, findings, {"kept": (plot, "Detail against retrieval: towards the lower right is better.")})


def _inside(wanted: Wanted, measured: Measurements) -> Found:
    seeds = SEEDS[:2] if wanted.quick else SEEDS
    kinds: dict[str, Callable[[int], MatcherMade]] = {
        **{f"{row}, hinge": partial(paper_training, KINDS[row]) for row in SOFTMAX},
        **{f"{row}, softmax": partial(softmax_training, KINDS[row]) for row in SOFTMAX},
        "from the cosine on, kept": partial(keeping_training, "residual-mlp", SHIPPED_KEEP),
    }
    rows: dict[str, list[Matcher | None]] = {COSINE_ROW: [None]}
    for name, training in kinds.items():
        rows[name] = [_made(training(seed), wanted, measured) for seed in seeds]
        rows[f"{name}, and levels"] = [_made(looking_inside(training(seed)), wanted, measured) for seed in seeds]
    found, findings = tables.inside(measured, rows)
    return Found(found, findings, {})


def _shipped(wanted: Wanted, measured: Measurements) -> Found:
    names = {SHIPPED: shipped_training(), SHIPPED_LOOKING: looking_inside(shipped_training())}
    matcher, looking = (
        load_matcher(made_matcher(training, wanted, measured.counter) if wanted.train else name)
        for name, training in names.items()
    )
    rows, _ = tables.shipped(measured, matcher, looking)
    looked = segment_twins(matcher, measured.scale.trend_scenes)
    caption = "The first twins that the cosine does not tell apart, and what the matcher calls them."
    return Found(rows, looked.findings(), {"told-apart": (looked.sheet, caption)})


def _questions(wanted: Wanted, measured: Measurements) -> Found:
    rows, findings = tables.detector_or_clip(measured, DETECTOR)
    return Found(rows, findings, {})


FINEGRAINED = Reproduction(
    name="finegrained",
    title="Fine-grained matching, on the world",
    paper="Bianchi et al., Is CLIP the main roadblock for fine-grained open-world perception?, CBMI 2024",
    scale=Scale(),
    quick=QUICK,
    parts=(
        Part(
            "matchers",
            "Six matchers, details against retrieval",
            _LEARNED
            + "Mean rank is the mean over the eight benchmarks; 1 is the best, ties count against. "
            + _RETRIEVED,
            True,
            _matchers,
        ),
        Part(
            "benchmarks",
            "Each benchmark",
            "Mean rank of the right caption among the wrong ones, of the same matchers on the same crops.",
            True,
            _benchmarks,
        ),
        Part(
            "kept",
            "Details without forgetting",
            "Not in the paper: mixtures of the fine-tuned MLP's score and the cosine, and matchers that begin as the "
            "cosine, add to each embedding what two layers make of it, learn with a softmax over the captions of a "
            "region, and are kept at the cosine's rankings of whole scenes by a weight. " + _RETRIEVED,
            True,
            _kept,
        ),
        Part(
            "inside",
            "Looking inside the frozen tower",
            "Not in the paper: behind the embedding of a region stand the mean and deviation, over the cells of its "
            f"crop, of tiny's maps after its blocks {LEVELS[0]} and {LEVELS[1]} (0 to 5). Rows are fine-tuned matchers "
            "without and with them, otherwise trained alike; mean ranks, and retrieval as above.",
            True,
            _inside,
        ),
        Part(
            "shipped",
            "The matchers that ship",
            f"`{SHIPPED}` on crops by `tiny`, and on the dense map of `tiny-clipself`, whose text tower is the same; "
            f"and `{SHIPPED_LOOKING}`, which looks inside `tiny`, on its crops. "
            "Mean rank of each benchmark on {scale.scenes} scenes; and twins, two things that differ in one attribute: "
            "the share in percent that is called by its own name and not by its twin's (chance 50), "
            "of {scale.trend_scenes} pairs a family.",
            False,
            _shipped,
        ),
        Part(
            "detector-or-clip",
            "Is it the detector or CLIP?",
            "Mean rank of each benchmark by the cosine: from crops, from the dense map, and through a detector, as far "
            "as it finds the thing; one that it does not find has the last rank. {scale.trend_scenes} scenes.",
            False,
            _questions,
        ),
    ),
)
