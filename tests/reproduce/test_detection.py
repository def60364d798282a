"""Detection in a reproduction: heads made once, a figure per seed, and what is said of them."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import PIL.Image
import pytest

from closeup.models.checkpoint import HEAD
from closeup.reproduce.detection import QUICK
from closeup.reproduce.detection_models import fvit_training, made_head, shipped_trainings
from closeup.reproduce.detection_paper import GROUPS, NOVEL
from closeup.reproduce.detection_pictures import found_sheet, named_sheet
from closeup.reproduce.detection_tables import KEPT_ROW, RAW_ROW, detectors, fusion
from closeup.reproduce.measure import Measurements
from closeup.reproduce.regionclip_models import ablation_trainings, concepts
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
    assert [(row.name, row.metric) for row in rows] == [(name, metric) for name in trained for metric in GROUPS]
    assert all(len(row.values) == 2 and row.spread is not None for row in rows)
    assert next(row for row in rows if row.metric == NOVEL).paper is not None
    shares, findings = fusion(measured, trained[KEPT_ROW][0])
    assert len(shares) == 4 * len(GROUPS)
    assert findings[0].startswith("Best on novel shapes: ")
    sheet = found_sheet({name: folders[0] for name, folders in trained.items()})
    assert isinstance(sheet, PIL.Image.Image)


def test_what_ships_stands_on_one_model() -> None:
    trainings = shipped_trainings()
    assert {training.model for training in trainings.values()} == {"tiny-clipself"}
    assert all(training.wanted().images == "world?count=3600" for training in trainings.values())
    assert all(training.wanted(share=2e-4).images == "world?count=8" for training in trainings.values())


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
