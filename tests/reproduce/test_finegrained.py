"""The reproduction of fine-grained matching: its rows, what is said of them, and the quick way through it."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from closeup.data.fgovd import BENCHMARKS
from closeup.match.matchers import new_matcher
from closeup.match.mixed import MixedMatcher
from closeup.reproduce import finegrained_tables as tables
from closeup.reproduce.finegrained import FINEGRAINED, QUICK
from closeup.reproduce.finegrained_models import keeping_training, made_matcher, paper_training, warmed_up
from closeup.reproduce.finegrained_paper import COSINE_ROW, FINE, KINDS, MATCHED, METRICS, SPLIT_RANKS, WARM
from closeup.reproduce.finegrained_tables import HARD_RANK, KEPT
from closeup.reproduce.measure import Measurements
from closeup.reproduce.result import Row
from closeup.reproduce.run import Wanted


def quick() -> Measurements:
    return Measurements(QUICK, lambda _: nullcontext(lambda done, every: None))


def test_the_papers_figures_have_a_place_in_our_rows() -> None:
    rows = {COSINE_ROW, *(f"{kind}, {stage}" for kind in KINDS for stage in (WARM, FINE))}
    assert {row for row, _ in MATCHED} == rows
    assert {metric for _, metric in MATCHED} == set(METRICS)
    assert {title for _, title in SPLIT_RANKS} == {each.title for each in BENCHMARKS.values()}


def test_ranks_and_retrieval_are_measured_once_for_each_matcher() -> None:
    measured = quick()
    cosine = new_matcher("cosine")
    mixed = MixedMatcher(cosine, cosine, 0.5)
    rows, _ = tables.by_benchmark(measured, {COSINE_ROW: [None], "the same": [mixed, mixed]})
    found = {(row.name, row.metric): row.values for row in rows}
    assert {metric for _, metric in found} == {each.title for each in BENCHMARKS.values()}
    for (name, metric), values in found.items():
        if name == "the same":
            assert values == pytest.approx(found[COSINE_ROW, metric] * 2, nan_ok=True), "a cosine by another way"
    known = len(measured._matched)
    tables.by_benchmark(measured, {COSINE_ROW: [None]})
    assert len(measured._matched) == known, "what was measured is not measured again"
    tables.matched(measured, {COSINE_ROW: [None]})
    assert len(measured._matched) == known + 1, "retrieval was not yet"


def test_what_is_said_of_keeping() -> None:
    rows = [
        Row(COSINE_ROW, HARD_RANK, (3.0,)),
        Row(COSINE_ROW, KEPT, (20.0,)),
        Row("MLP", HARD_RANK, (2.0,)),
        Row("MLP", KEPT, (5.0,)),
        Row("kept", HARD_RANK, (2.05,)),
        Row("kept", KEPT, (19.5,)),
        Row("lost", HARD_RANK, (1.9,)),
        Row("lost", KEPT, (18.0,)),
    ]
    assert tables._said_of_keeping(rows, "MLP") == [
        "MLP: +1.00 ranks gained on Hard, R@1 -15.0 points.",
        "kept: 95% of that gain, R@1 -0.5 points: keeps retrieval.",
        "lost: 110% of that gain, R@1 -2.0 points: does not keep retrieval.",
    ]


@pytest.mark.slow
def test_matchers_are_made_and_measured_quickly(tmp_path: Path) -> None:
    wanted = Wanted(train=True, quick=True, work=tmp_path)
    measured = quick()
    parts = {part.key: part for part in FINEGRAINED.parts}
    found = parts["kept"].measure(wanted, measured)
    names = list(dict.fromkeys(row.name for row in found.rows))
    assert names[:2] == [COSINE_ROW, f"MLP, {FINE}"]
    assert len(names) == 13
    assert set(found.pictures) == {"kept"}
    folder = made_matcher(paper_training("mlp", 0), wanted, measured.counter)
    assert Path(folder, "card.json").is_file()
    assert Path(warmed_up(folder), "card.json").is_file()
    assert Path(made_matcher(keeping_training("residual", 1.0, 0), wanted, measured.counter)).is_dir()
