"""Blends in a reproduction: the same as blending by hand, ends measured as themselves, and what is said of them."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from closeup.models import load
from closeup.reproduce.clipself import QUICK
from closeup.reproduce.clipself_blends import ADAPTED, blends
from closeup.reproduce.clipself_tables import ROWS
from closeup.reproduce.measure import Blend, Measurements, between


@pytest.fixture
def measured() -> Measurements:
    return Measurements(QUICK, lambda _: nullcontext(lambda done, every: None))


def test_a_blend_is_the_weighted_mean_of_both_weights(measured: Measurements) -> None:
    mixed = measured.clip(Blend("tiny", "tiny-clipself", 0.25)).model.state_dict()
    start, end = (load(name).model.state_dict() for name in ("tiny", "tiny-clipself"))
    for name, value in mixed.items():
        torch.testing.assert_close(value, 0.75 * start[name] + 0.25 * end[name], rtol=1e-5, atol=1e-6)


def test_the_ends_of_a_blend_are_the_models_themselves() -> None:
    assert between("tiny", "tiny-clipself", 0.0) == "tiny"
    assert between("tiny", "tiny-clipself", 1.0) == "tiny-clipself"
    assert str(between("tiny", "tiny-clipself", 0.5)) == "0.5 of tiny-clipself"


def test_every_alpha_of_both_models_has_its_figures(measured: Measurements) -> None:
    rows, findings = blends(measured, ROWS)
    assert len(rows) == len(ADAPTED) * len(QUICK.alphas) * 3
    starts = {tuple(row.values) for row in rows if row.name.endswith("alpha 0") and row.metric == "boxes top-1"}
    assert len(starts) == 1, "both curves start from the raw model"
    assert len(findings) == len(ADAPTED)
