"""The option --matcher of every verb that has it: as in Python, and refused where it can do nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import closeup.predict as predict
from closeup.match import load_matcher, new_matcher, save_matcher
from closeup.models import Clip
from commands import Run, Write, files_below
from tiny_towers import randomise

BOXES = [[0.0, 0.0, 32.0, 48.0], [32.0, 8.0, 64.0, 40.0]]
NAMES = ["dog", "cat", "grass"]
WORDS = ("--words", "dog, cat, grass")


@pytest.fixture(params=["unit", "raw"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a matcher of the small CLIP's width."""
    matcher = new_matcher("linear", 24, inputs=request.param, scale=20.0)
    randomise(matcher, 0)
    return save_matcher(matcher, tmp_path / "my-matcher")


def test_every_verb_compares_by_it_as_in_python(
    closeup: Run, photo: Path, write: Write, small_clip: Clip, folder: Path, tmp_path: Path
) -> None:
    by = ("--matcher", folder, "--model", small_clip.name, "--precision", "fp32")
    matcher, boxes = load_matcher(folder), write("boxes.json", BOXES)
    ran = closeup("classify", photo, "--regions", boxes, *WORDS, *by, "--top", "3", "--json")
    assert ran.code == 0, ran.err
    named = predict.classify(small_clip, photo, NAMES, boxes=torch.tensor(BOXES), top=3, matcher=matcher)
    told = [[row["probability"] for row in region["top"]] for region in ran.json["photos"][0]["regions"]]
    np.testing.assert_allclose(told, named.probabilities.numpy(), atol=1e-5)

    ran = closeup("detect", photo, "--regions", boxes, *WORDS, *by, "--threshold", "0", "--json")
    assert ran.code == 0, ran.err
    found = predict.detect_zero_shot(small_clip, photo, NAMES, boxes=BOXES, threshold=0.0, matcher=matcher)
    objects = ran.json["photos"][0]["objects"]
    assert [each["score"] for each in objects] == pytest.approx(found.scores.tolist(), abs=1e-5)

    for more, window in (((), None), (("--window", "16"), 16)):
        ran = closeup("segment", photo, *WORDS, *by, *more, "--out", tmp_path / "out", "--format", "npz")
        assert ran.code == 0, ran.err
        with np.load(tmp_path / "out" / "photo.npz") as arrays:
            expected = predict.segment(small_clip, photo, NAMES, window=window, matcher=matcher)
            assert torch.equal(torch.from_numpy(arrays["label_map"]), expected.label_map)
            assert matcher.fingerprint in str(arrays["provenance"])

    ran = closeup("heatmap", "dog, grass", photo, *by, "--out", tmp_path / "heat", "--format", "npz")
    assert ran.code == 0, ran.err
    with np.load(tmp_path / "heat" / "photo.npz") as arrays:
        cells = predict.heatmap(small_clip, photo, ["dog", "grass"], templates="name", matcher=matcher).cells
        np.testing.assert_allclose(arrays["cells"], cells.numpy(), atol=1e-6)


@pytest.mark.parametrize("folder", ["unit"], indirect=True)
def test_segmentation_is_measured_by_it(closeup: Run, small_clip: Clip, folder: Path) -> None:
    ran = closeup(
        "evaluate", "segmentation", "--data", "world?count=2&size=64", "--workers", "0", "--model", small_clip.name,
        "--matcher", folder, "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "miou" in ran.json


@pytest.mark.parametrize("folder", ["unit"], indirect=True)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("segment", "--method", "maskclip"), "--matcher is an option of --method dense, not maskclip."),
        (("segment", "--method", "ovseg"), "--matcher is an option of --method dense, not ovseg."),
        (("detect", "--detector", "none"), "--matcher is about a CLIP alone"),
        (("segment",), "compares embeddings of 24 dimensions, and those of 'tiny' have"),
        (("detect",), "compares embeddings of 24 dimensions, and those of 'tiny' have"),
        (("classify", "--regions", "boxes.json"), "compares embeddings of 24 dimensions, and those of 'tiny' have"),
    ],
)
def test_where_it_can_do_nothing_it_is_refused(
    closeup: Run, photo: Path, write: Write, tmp_path: Path, folder: Path, words: tuple[str, ...], message: str
) -> None:
    write("boxes.json", BOXES)
    before = files_below(tmp_path)
    ran = closeup(words[0], photo, *WORDS, *words[1:], "--matcher", folder)
    assert ran.code == 2
    assert message in ran.err
    assert len(ran.err.splitlines()) == 1
    assert files_below(tmp_path) == before


def test_what_is_no_matcher_is_refused(closeup: Run, photo: Path, small_clip: Clip) -> None:
    for wrong, message in (("nowhere", "There is no matcher 'nowhere'"), (small_clip.name, "so it is no matcher")):
        ran = closeup("segment", photo, *WORDS, "--model", small_clip.name, "--matcher", wrong)
        assert ran.code == 2
        assert message in ran.err


@pytest.mark.parametrize("verb", ["segment", "detect", "classify", "heatmap"])
def test_help_tells_what_it_is(closeup: Run, verb: str) -> None:
    ran = closeup(verb, "--help")
    assert "--matcher" in ran.out
    assert "FG-CLIP" in ran.out
