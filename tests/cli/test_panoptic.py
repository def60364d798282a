from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO

from closeup.data.world import World
from closeup.heads.mask_proposer import MaskProposer, load_mask_proposer, new_mask_proposer
from closeup.heads.trained import save_head
from closeup.models import Clip, load
from closeup.predict import evaluate_panoptic, panoptic
from commands import Run, files_below
from tiny_towers import randomise

SMALL = {"queries": 6, "channels": 32, "hidden": 16, "heads": 2, "layers": 2, "feed_forward": 32, "words_hidden": 24}
WORLD = World("val", count=2, size=(64, 64))


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = new_mask_proposer(
        load("tiny", device="cpu", precision="fp32"),
        WORLD.names,
        [name in WORLD.novel for name in WORLD.names],
        templates="simple",
        size=64,
        config=SMALL,
    )
    randomise(made.head, 0)
    return save_head(made, tmp_path_factory.mktemp("heads") / "masks")


@pytest.fixture(scope="module")
def proposer(head: Path) -> MaskProposer:
    return load_mask_proposer(head, device="cpu", precision="fp32")


def test_photos_are_cut_as_in_python(
    closeup: Run, photos: Path, head: Path, proposer: MaskProposer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, words = tmp_path / "out", ["star", "circle", "grass"]
    base = ("panoptic", photos, "--words", ", ".join(words), "--things", "circle, star", "--head", head)
    more = ("--threshold", "0.1", "--precision", "fp32", "--out", out, "--format", "png", "npz", "coco")
    ran = closeup(*base, *more, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert files_below(out) == ["a.npz", "a.png", "b.npz", "b.png", "coco.json", "deep/a.npz", "deep/a.png"]
    assert ran.json["model"] == "tiny"
    segments = 0
    for told in ran.json["photos"]:
        expected = panoptic(proposer.clip, proposer, told["photo"], words, things=["star", "circle"], threshold=0.1)
        assert sorted(row["word"] for row in told["segments"]) == sorted(expected.words)
        kinds = {row["word"]: row["kind"] for row in told["segments"]}
        assert set(kinds.items()) <= {("star", "thing"), ("circle", "thing"), ("grass", "stuff")}
        segments += len(expected)
        with np.load(out / Path(told["photo"]).relative_to(photos).with_suffix(".npz")) as arrays:
            assert torch.equal(torch.from_numpy(arrays["places"]), expected.places)
    assert segments > 3
    assert len(COCO(out / "coco.json").getAnnIds()) == segments
    capsys.readouterr()
    table = closeup(*base, "--out", tmp_path / "more", "--no-gaps", "--apart", "whole", "--how", "mask-token")
    assert table.code == 0
    assert "word" in table.out


def test_another_clip_may_look(closeup: Run, photo: Path, head: Path, small_clip: Clip, tmp_path: Path) -> None:
    base = ("panoptic", photo, "--words", "star, grass", "--head", head, "--threshold", "0.1", "--json")
    for model, name in (((), "tiny"), (("--model", small_clip.name), small_clip.name)):
        ran = closeup(*base, *model, "--out", tmp_path / str(len(model)))
        assert ran.code == 0, ran.err
        assert ran.json["model"] == name


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (("--things", "stars"), "no name 'stars'"),
        (("--how", "crop"), "crop"),
        (("--weight", "2"), "weight is 2"),
        (("--head", "nowhere"), "nowhere"),
        (("--how", "mask-prompt"), "no mask prompts"),
        (("--route", "vlaue"), "'value'"),
    ],
)
def test_one_line_and_nothing_written(
    closeup: Run, photo: Path, head: Path, tmp_path: Path, changes: tuple[str, str], told: str
) -> None:
    given = {"--words": "star, grass", "--head": head, "--threshold": "0", "--out": tmp_path / "out"}
    given[changes[0]] = changes[1]
    ran = closeup("panoptic", photo, *(word for pair in given.items() for word in pair))
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    assert told in ran.err
    assert not (tmp_path / "out").exists()


def test_quality_as_in_python(closeup: Run, head: Path, proposer: MaskProposer, tmp_path: Path) -> None:
    base = ("evaluate", "panoptic", "--data", "world?count=2&size=64", "--head", head, "--precision", "fp32")
    ran = closeup(*base, "--threshold", "0.1", "--workers", "0", "--out", tmp_path / "report.json", "--json")
    assert (ran.code, ran.err) == (0, "")
    expected = evaluate_panoptic(proposer.clip, proposer, WORLD, threshold=0.1)
    assert ran.json["summary"] == json.loads(json.dumps(expected.summary()))
    assert ran.json["per_class"] == expected.table()
    assert json.loads((tmp_path / "report.json").read_text())["images"] == 2
    table = closeup(*base, "--limit", "1", "--model", "tiny-clipself", "--how", "mask-token")
    assert table.code == 0
    assert "novel" in table.out
    assert "seen by tiny-clipself" in table.out
    for wrong in (("--limit", "0"), ("--workers", "-1"), ("--data", "wrold")):
        assert closeup(*base, *wrong).code == 2
