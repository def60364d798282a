"""Detection in a reproduction: heads made once, a figure per seed, and what is said of them."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import PIL.Image
import pytest

from closeup.models.checkpoint import HEAD
from closeup.reproduce.detection import QUICK
from closeup.reproduce.detection_models import fvit_training, made_head, shipped_trainings
from closeup.reproduce.detection_paper import BASE, GROUPS, NOVEL
from closeup.reproduce.detection_pictures import found_sheet, named_sheet
from closeup.reproduce.detection_tables import (
    KEPT_ROW,
    PATCHES_ROW,
    PROPOSALS_ROW,
    RAW_ROW,
    REGIONCLIP_ROW,
    detectors,
    follows,
    fusion,
)
from closeup.reproduce.measure import Measurements
from closeup.reproduce.regionclip_models import ablation_trainings, concepts
from closeup.reproduce.result import Row
from closeup.reproduce.run import Wanted
from closeup.text.concepts import read_concepts


@pytest.fixture
def measured() -> Measurements:
    return Measurements(QUICK, lambda _: nullcontext(lambda done, every: None))


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    return Wanted(train=True, quick=True, work=tmp_path)


@pytest.mark.slow
def test_heads_are_made_once_and_give_a_figure_per_seed(measured: Measurements, wanted: Wanted) -> None:
    trained = {
        row: [made_head(fvit_training(model, seed), wanted) for seed in (0, 1)]
        for row, model in ((RAW_ROW, "tiny"), (KEPT_ROW, "tiny-clipself"))
    }
    weights = [(Path(folder) / HEAD).read_bytes() for folder in trained[RAW_ROW]]
    assert weights[0] != weights[1], "seeds differ"
    assert made_head(fvit_training("tiny", 0), wanted) == trained[RAW_ROW][0]
    assert (Path(trained[RAW_ROW][0]) / HEAD).read_bytes() == weights[0]
    rows, _ = detectors(measured, trained)
    assert {(row.name, row.metric) for row in rows} <= {(name, metric) for name in trained for metric in GROUPS}
    assert {row.name for row in rows} == set(trained)
    assert all(len(row.values) == 2 and row.spread is not None for row in rows)
    shares, findings = fusion(measured, trained[KEPT_ROW][0])
    assert len({row.name for row in shares}) == 4
    assert all(finding.startswith("Best on novel shapes: ") for finding in findings)
    sheet = found_sheet({name: folders[0] for name, folders in trained.items()})
    assert isinstance(sheet, PIL.Image.Image)


def test_what_ships_stands_on_one_model() -> None:
    trainings = shipped_trainings()
    assert {training.model for training in trainings.values()} == {"tiny-clipself"}
    assert all(training.wanted().images == "world?count=3600" for training in trainings.values())
    assert all(training.wanted(share=2e-4).images == "world?count=8" for training in trainings.values())


@pytest.mark.parametrize(
    ("novel", "patches", "proposals", "said"),
    [
        (2.0, 30.0, 40.0, ["patches: novel 30.0 %, 15.0 times", "novel 40.0 %, 20.0 times", "+10.0 points, as in"]),
        (0.0, 30.0, 20.0, ["patches: novel 30.0 % against raw's 0", "against raw's 0", "-10.0 points, unlike"]),
        (0.0, 0.0, 0.0, ["against raw's 0", "against raw's 0"]),
    ],
)
def test_what_follows_is_said_by_rule(novel: float, patches: float, proposals: float, said: list[str]) -> None:
    means = {RAW_ROW: novel, PATCHES_ROW: patches, PROPOSALS_ROW: proposals}
    rows = [Row(name, metric, (value,)) for name, value in means.items() for metric in (NOVEL, BASE)]
    findings = follows(rows)
    assert len(findings) == len(said)
    assert all(words in sentence for words, sentence in zip(said, findings, strict=True))
    assert follows([row for row in rows if row.metric == BASE]) == []
    ahead = follows([*rows, *(Row(REGIONCLIP_ROW, metric, (90.0,)) for metric in (NOVEL, BASE))])
    assert ahead[-1].startswith(f"{PROPOSALS_ROW} against {REGIONCLIP_ROW}: novel -")
    assert ahead[-1].endswith("unlike the paper, where proposals are ahead.")


def test_concepts_are_mined_once(measured: Measurements, wanted: Wanted) -> None:
    path = concepts(wanted, measured.counter)
    assert {"star", "grass"} & set(read_concepts(path))
    Path(path).write_text("kept\n", encoding="utf-8")
    assert read_concepts(concepts(wanted, measured.counter)) == ["kept"]
    trainings = ablation_trainings(path)
    assert len({training.name for training in trainings.values()}) == len(trainings) == 6
    assert all(training.config["concepts"] == path for training in trainings.values())


def test_models_name_boxes_side_by_side(measured: Measurements) -> None:
    sheet = named_sheet({"one": measured.clip("tiny"), "other": measured.clip("tiny-clipself")}, 64)
    assert sheet.width > sheet.height * 0.8
