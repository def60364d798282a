"""OVSeg's tables and those of segmentation in a reproduction: models made once, figures, and what is said of them."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import PIL.Image
import pytest

from closeup.data.world import World
from closeup.heads.mask_proposer import new_mask_proposer
from closeup.heads.segmenter import new_segmenter
from closeup.heads.trained import save_head
from closeup.models.load import load
from closeup.models.mask_prompt import prompts_of
from closeup.predict.scorers import DenseScorer
from closeup.reproduce import ovseg_tables, segmentation_tables
from closeup.reproduce.measure import Measurements
from closeup.reproduce.ovseg import OVSEG, QUICK
from closeup.reproduce.ovseg_models import ADAPTED, TOWER, adapted_trainings, depth_trainings, order_trainings
from closeup.reproduce.ovseg_paper import DEPTH, MIOU, ORDER
from closeup.reproduce.ovseg_pictures import scorers_sheet
from closeup.reproduce.result import Row
from closeup.reproduce.run import Wanted
from closeup.reproduce.segmentation import SEGMENTATION, catseg_trainings
from closeup.reproduce.trainings import made
from tiny_towers import randomise

SMALL = {"queries": 4, "channels": 32, "hidden": 16, "heads": 2, "layers": 1, "feed_forward": 32, "words_hidden": 24}
NARROW: dict[str, object] = {
    "hidden": 16, "heads": 2, "window": 8, "appearance": 8, "meaning": 8, "decoder": (16, 16), "guidance": (8, 8),
    "guides": (6, 4), "padding": 40, "tune": "nothing", "route": "value",
}  # fmt: skip


@pytest.fixture
def measured() -> Measurements:
    return Measurements(QUICK, lambda _: nullcontext(lambda done, every: None))


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder, clip, world = tmp_path_factory.mktemp("heads"), load("tiny", device="cpu"), World()
    novel = [name in world.novel for name in world.names]
    masks = new_mask_proposer(clip, world.names, novel, templates="simple", size=64, config=SMALL)
    catseg = new_segmenter(clip, world.names, novel, templates="simple", size=32, config=NARROW)
    for made_head in (masks, catseg):
        randomise(made_head.head, 0)
    return {"masks": str(save_head(masks, folder / "masks")), "catseg": str(save_head(catseg, folder / "catseg"))}


def test_trainings_stand_on_each_other_and_prompts_come_last(tmp_path: Path, measured: Measurements) -> None:
    wanted = Wanted(train=True, quick=True, work=tmp_path)
    trained = {row: made(training, wanted) for row, training in adapted_trainings().items()}
    assert [Path(folder).name for folder in trained.values()] == ["maskadapt-prompts", TOWER, ADAPTED]
    both = load(trained["tower, then mask prompts"])
    assert prompts_of(both.tower) is not None
    assert prompts_of(load(trained["tower"]).tower) is None
    found = ovseg_tables.named("both", measured.masks_named(trained["tower, then mask prompts"]))
    assert {row.metric for row in found} <= {"masks named: novel things", "base things", "grounds"}
    assert all(0 <= row.mean <= 100 for row in found)


def test_rows_are_those_of_the_papers_tables() -> None:
    assert {*order_trainings()} < {*ORDER}
    assert {*depth_trainings()} == {*DEPTH}
    assert {training.name for training in catseg_trainings().values()} == {
        "tiny-catseg",
        "catseg-tiny",
        "catseg-tiny-learning",
    }
    for what in (OVSEG, SEGMENTATION):
        assert all("{" not in part.about.format(scale=what.scale) for part in what.parts)


def test_figures_of_parts_and_both(measured: Measurements, heads: dict[str, str]) -> None:
    rows, told = ovseg_tables.ensemble(measured, "tiny-clipself", heads["masks"])
    means = {row.name: row.mean for row in rows if row.metric == MIOU}
    assert list(means) == [
        "the proposer alone",
        "raw: CLIP alone",
        "raw: both",
        "adapted: CLIP alone",
        "adapted: both",
        "adapted: both, and what no mask covers",
    ]
    best = max(means["the proposer alone"], means["adapted: CLIP alone"])
    assert ("not above" in told[0]) == (means["adapted: both"] <= best)
    oracle, _ = ovseg_tables.oracle(measured, "tiny-clipself", heads["masks"])
    assert len({row.name for row in oracle}) == 4
    assert all(0 <= row.mean <= 100 for row in rows + oracle)


def test_figures_of_backbones(measured: Measurements, heads: dict[str, str]) -> None:
    rows, _ = segmentation_tables.catseg(measured, {"raw": heads["catseg"]})
    assert {row.name for row in rows} == {"raw"}
    rows, _ = segmentation_tables.panoptic(measured, heads["masks"])
    assert segmentation_tables.ALONE in {row.name for row in rows}
    assert all(0 <= row.mean <= 100 for row in rows)


def test_what_is_said_follows_from_the_rows() -> None:
    rows = [Row("raw", "PQ", (20.0,)), Row("CLIPSelf", "PQ", (25.5,)), Row(segmentation_tables.ALONE, "PQ", (9.0,))]
    assert segmentation_tables.compared(rows, ("PQ",)) == ["CLIPSelf: PQ +5.5 points against raw."]
    assert ovseg_tables.gains([Row("raw", MIOU, (20.0,)), Row("tower", MIOU, (18.0,))]) == [
        "tower: mIoU -2.0 points over raw."
    ]


def test_a_sheet_has_the_truth_first() -> None:
    sheet = scorers_sheet({"dense": DenseScorer(load("tiny"))})
    assert isinstance(sheet, PIL.Image.Image)
