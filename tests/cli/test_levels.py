"""Matchers that look inside the tower, by the command: trained, used in every verb, and refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from closeup.data.registry import open_reader
from closeup.match import Matcher, load_matcher, new_matcher, save_matcher
from closeup.match.matcher import Seen
from closeup.models import Clip
from closeup.models.levels import with_levels
from closeup.predict import classify, detect_zero_shot
from closeup.predict.evaluate_benchmarks import evaluate_benchmarks
from closeup.predict.whole_image import encode_whole, retrievals
from commands import Ran, Run, Write, files_below
from tiny_towers import randomise

REGIONS = "world?negatives=1_attributes&count=8&size=96"
PAIRS = "world?count=6&size=96"
LEARN = ("adapt", "finegrained", "--preset", "keep", "--workers", "0", "--regions", REGIONS, "--pairs", PAIRS)
BRIEF = ("--steps", "6", "--batch-size", "4", "--hidden", "8")
LEVELS = (0, 2)
BOXES = [[0, 0, 40, 30], [5, 5, 60, 40]]


def refused(ran: Ran, *parts: str) -> None:
    assert ran.code == 2, ran.out
    assert "Traceback" not in ran.err
    assert [line.startswith("closeup: error") for line in ran.err.splitlines() if "closeup" in line] == [True], ran.err
    for part in parts:
        assert part in ran.err, ran.err


def saved(clip: Clip, folder: Path, how: str, images: str | None = None) -> Path:
    details = with_levels(clip, LEVELS).dim - clip.dim
    seen = Seen(LEVELS, details, images=images or clip.fingerprint, how=how)
    made: Matcher = new_matcher("residual", clip.dim, scale=20.0, seen=seen)
    randomise(made, 0)
    return save_matcher(made, folder)


def test_a_dense_matcher_is_trained_resumed_and_used(
    closeup: Run, small_clip: Clip, photo: Path, photos: Path, write: Write, tmp_path: Path
) -> None:
    base = (*LEARN, *BRIEF, "--levels", "0", "2", "--how", "dense", "--model", small_clip.name, "--out", "mine")
    ran = closeup(*base, "--json", "--report-limit", "4")
    assert ran.code == 0, ran.err
    figures = ran.json["figures"]
    assert figures["untrained"] == figures["cosine"]
    matcher = load_matcher("mine")
    assert matcher.seen is not None
    assert (matcher.seen.levels, matcher.seen.how, matcher.seen.images) == (LEVELS, "dense", small_clip.fingerprint)
    assert json.loads((tmp_path / "mine" / "card.json").read_text())["trained"]["config"]["levels"] == list(LEVELS)
    measured = ran.json["report"]["matcher"]["benchmarks"]["1_attributes"]

    refused(closeup(*base, "--resume", "--levels", "1"), "was begun with the config")
    again = closeup(*base, "--resume", "--report", "none")
    assert again.code == 0, again.err
    assert load_matcher("mine").fingerprint == matcher.fingerprint

    look = ("--model", small_clip.name, "--precision", "fp32", "--matcher", "mine")
    asked = closeup(
        "evaluate", "finegrained", "--data", f"{REGIONS}&split=val", "--how", "dense", "--limit", "4",
        "--retrieval", PAIRS, "--json", *look,
    )  # fmt: skip
    assert asked.code == 0, asked.err
    readers = {"1_attributes": open_reader(f"{REGIONS}&split=val")}
    expected = evaluate_benchmarks(small_clip, readers, {"": matcher}, how="dense", limit=4)[""]
    assert asked.json["benchmarks"] == expected.summary()["benchmarks"]
    assert measured["mean_rank"] == pytest.approx(asked.json["mean_rank"])
    images = encode_whole(with_levels(small_clip, LEVELS), open_reader(PAIRS), limit=4)
    assert asked.json["retrieval"] == {"data": PAIRS, **retrievals(small_clip, images, {"": matcher})[""].summary()}

    boxes = write("boxes.json", BOXES)
    named = closeup("classify", photo, "--regions", boxes, "--words", "cat, dog", "--json", *look)
    assert named.code == 0, named.err
    for verb in (
        ("segment", photos, "--words", "cat, dog", "--out", "segmented"),
        ("heatmap", "cat", photo, "--out", "heat"),
        ("detect", photos, "--words", "cat, dog", "--json"),
        ("evaluate", "segmentation", "--data", "world?count=2&size=96", "--json"),
    ):
        ran = closeup(*verb, *look)
        assert ran.code == 0, ran.err
    # Of photos that are cut out, it knows nothing; it says so once, however many there are.
    for other in (
        ("classify", photo, "--regions", boxes, "--words", "cat, dog", "--how", "crop"),
        ("detect", photos, "--words", "cat, dog", "--how", "crop"),
        ("evaluate", "finegrained", "--data", "world?count=2&size=96"),
    ):
        refused(closeup(*other, *look), "by the encoder 'dense', and here they come by 'crop'")


def test_a_matcher_of_crops_is_used_by_verbs_that_cut_out(
    closeup: Run, small_clip: Clip, photo: Path, photos: Path, write: Write, tmp_path: Path
) -> None:
    mine = saved(small_clip, tmp_path / "mine", "crop")
    look = ("--model", small_clip.name, "--precision", "fp32", "--matcher", mine)
    boxes, matcher = write("boxes.json", BOXES), load_matcher(mine)
    named = closeup("classify", photo, "--regions", boxes, "--words", "cat, dog", "--how", "crop", "--json", *look)
    assert named.code == 0, named.err
    expected = classify(
        small_clip, photo, ["cat", "dog"], boxes=torch.tensor(BOXES).float(), how="crop", top=2, matcher=matcher
    )
    told = [[row["probability"] for row in region["top"]] for region in named.json["photos"][0]["regions"]]
    torch.testing.assert_close(torch.tensor(told), expected.probabilities, atol=1e-5, rtol=0)
    found = closeup(
        "detect", photo, "--regions", boxes, "--words", "cat, dog", "--how", "crop", "--threshold", "0", "--json", *look
    )
    assert found.code == 0, found.err
    by_hand = detect_zero_shot(
        small_clip, photo, ["cat", "dog"], boxes=torch.tensor(BOXES).float(), how="crop", threshold=0, matcher=matcher
    )
    scores = [each["score"] for each in found.json["photos"][0]["objects"]]
    assert scores == pytest.approx(by_hand.scores.tolist(), abs=1e-4)

    for verb in (
        ("segment", photos, "--words", "cat, dog", "--out", "segmented"),
        ("heatmap", "cat", photos, "--out", "heat"),
        ("detect", photos, "--words", "cat, dog"),
        ("classify", photo, "--regions", boxes, "--words", "cat, dog"),
        ("evaluate", "segmentation", "--data", "world?count=2&size=96"),
        ("evaluate", "finegrained", "--data", "world?count=2&size=96", "--how", "dense"),
    ):
        refused(
            closeup(*verb, *look), "inside by the encoder 'crop', and here they come by 'dense'", "with --how dense"
        )
    masked = closeup("evaluate", "finegrained", "--data", "world?count=2&size=96", "--how", "masked-crop", *look)
    refused(masked, "by the encoder 'crop', and here they come by 'masked-crop'", "take a matcher without --levels")


def test_another_model_is_another_one_inside(closeup: Run, small_clip: Clip, photos: Path, tmp_path: Path) -> None:
    mine = saved(small_clip, tmp_path / "mine", "dense", images="0" * 64)
    before = files_below(tmp_path)
    for verb in (
        ("segment", photos, "--words", "cat, dog", "--out", "segmented"),
        ("heatmap", "cat", photos, "--out", "heat"),
        ("detect", photos, "--words", "cat, dog"),
        ("evaluate", "segmentation", "--data", "world?count=2&size=96"),
        ("evaluate", "finegrained", "--data", "world?count=2&size=96", "--how", "dense"),
    ):
        ran = closeup(*verb, "--model", small_clip.name, "--matcher", mine)
        refused(ran, "looks into the model 000000000000", "which is another one inside")
    assert files_below(tmp_path) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--levels", "3"), "Block 3 does not exist: the tower has 3 blocks, 0 to 2"),
        (("--levels", "1", "1"), "levels is (1, 1): name one block or more, each once"),
        (("--levels", "x"), "--levels"),
        (("--levels", "0", "--kind", "attention"), "`levels` are for linear,"),
        (("--levels", "0", "--kind", "linear-text"), "`levels` are for linear,"),
        (("--how", "dense", "--enlarge", "1.5"), "`enlarge` is 1.5, and 'dense' cuts nothing out"),
        (("--how", "masked-crop"), "--how"),
    ],
)
def test_what_cannot_be_seen_is_refused_and_leaves_no_training(
    closeup: Run, small_clip: Clip, words: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    ran = closeup(*LEARN, "--steps", "2", "--model", small_clip.name, "--out", "mine", *words)
    refused(ran, message)
    assert not files_below(tmp_path)


def test_levels_that_count_from_the_end(closeup: Run, small_clip: Clip) -> None:
    ran = closeup(*LEARN, "--steps", "2", "--levels", "-3", "-1", "--model", small_clip.name, "--report", "none",
        "--out", "mine")  # fmt: skip
    assert ran.code == 0, ran.err
    matcher = load_matcher("mine")
    assert matcher.seen is not None
    assert matcher.seen.levels == LEVELS


@pytest.mark.parametrize("words", [("--matcher", "mine"), ("--how", "dense"), ("--scale", "2", "--how", "crop")])
def test_a_detector_knows_how_it_looks(closeup: Run, small_clip: Clip, words: tuple[str, ...], tmp_path: Path) -> None:
    saved(small_clip, tmp_path / "mine", "crop")
    ran = closeup("evaluate", "finegrained", "--data", "world?count=2", "--detector", "tiny-fvit", *words)
    refused(ran, f"{words[0]} is of a CLIP and true boxes")


def test_a_detector_of_photos_knows_how_it_looks(closeup: Run, photo: Path) -> None:
    ran = closeup("detect", photo, "--words", "cat", "--detector", "tiny-fvit", "--how", "crop")
    refused(ran, "--how is about a CLIP alone")
