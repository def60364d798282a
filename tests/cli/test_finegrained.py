"""The parts finegrained of the verbs evaluate and adapt: as in Python, resumed, and refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from closeup.data.fgovd import BENCHMARKS
from closeup.data.registry import open_reader
from closeup.data.world.fine_grained import every_benchmark
from closeup.data.world.world import World
from closeup.match import load_matcher, new_matcher, save_matcher
from closeup.models import Clip
from closeup.predict.evaluate_benchmarks import evaluate_benchmarks
from closeup.predict.whole_image import encode_whole, retrievals
from closeup.recipes.finegrained_config import PRESETS, stage_changed
from closeup.recipes.run_finegrained import MatcherTraining, held_line
from commands import Ran, Run, Write, files_below
from goldens import SHARED
from tiny_towers import randomise

REGIONS = "world?negatives=1_attributes&count=8&size=96"
PAIRS = "world?count=6&size=96"
LEARN = ("adapt", "finegrained", "--preset", "tiny", "--workers", "0", "--regions", REGIONS)
BRIEF = ("--steps", "6", "--pair-steps", "3", "--batch-size", "4")


def refused(ran: Ran, *parts: str) -> None:
    assert ran.code == 2, ran.out
    # A training may have drawn its bar by then.
    assert [line.startswith("closeup: error") for line in ran.err.splitlines() if "closeup" in line] == [True], ran.err
    for part in parts:
        assert part in ran.err, ran.err


@pytest.fixture
def matcher(tmp_path: Path) -> Path:
    made = new_matcher("linear", 24, inputs="raw")
    randomise(made, 0)
    return save_matcher(made, tmp_path / "my-matcher")


def test_the_world_s_eight_are_measured_as_in_python(
    closeup: Run, small_clip: Clip, matcher: Path, tmp_path: Path
) -> None:
    ran = closeup(
        "evaluate", "finegrained", "--data", "world?count=6&size=96", "--limit", "4", "--model", small_clip.name,
        "--precision", "fp32", "--matcher", matcher, "--scale", "1.2", "--retrieval", PAIRS, "--out", "report.json",
        "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert ran.err == ""
    readers, by = every_benchmark(World(count=4, size=(96, 96))), load_matcher(matcher)
    expected = evaluate_benchmarks(small_clip, readers, {"": by}, scale=1.2)[""]
    assert ran.json["benchmarks"] == expected.summary()["benchmarks"]
    assert (ran.json["mean_rank"], ran.json["ranked"]) == (expected.mean_rank, len(expected.ranked))
    assert ran.json["families"]["color"].keys() == expected.reports["color"].families().keys()
    images = encode_whole(small_clip, open_reader(PAIRS), limit=4, normalize=False)
    assert ran.json["retrieval"] == {"data": PAIRS, **retrievals(small_clip, images, {"": by})[""].summary()}
    whole = json.loads((tmp_path / "report.json").read_text())
    assert whole["matcher"] == str(matcher)
    assert len(whole["benchmarks"]["color"]["items"]) == len(expected.reports["color"].items)


def test_a_table_names_the_rule_of_ties(closeup: Run, small_clip: Clip) -> None:
    base = ("evaluate", "finegrained", "--model", small_clip.name, "--how", "dense", "--workers", "0")
    ran = closeup(*base, "--data", "world?count=3&size=96", "--retrieval", "world?count=3&size=64")
    assert ran.code == 0, ran.err
    for word in (*(each.title for each in BENCHMARKS.values()), "left out", "FG mean rank", "eight benchmarks", "R@10"):
        assert word in ran.out
    assert "scores the same as the right one ranks before it" in ran.out
    one = closeup(*base, "--data", "world?count=3&size=96&negatives=color")
    assert "Color" in one.out
    assert "FG mean rank" not in one.out


def test_written_negatives_are_benchmarks(closeup: Run, small_clip: Clip) -> None:
    """What closeup negatives writes is measured as a folder, as one of its files, and under another name."""
    ran = closeup("negatives", "world?count=3&size=96", "--changes", "1", "color", "--out", "made")
    assert ran.code == 0, ran.err
    base = ("evaluate", "finegrained", "--model", small_clip.name, "--workers", "0", "--json", "--data")
    both = closeup(*base, "fgovd:made").json["benchmarks"]
    assert list(both) == ["1_attributes", "color"]
    assert both["color"]["items"] + both["color"]["left_out"] > 0
    for line in ("made/color.json", "fgovd:made?split=color"):
        assert closeup(*base, line).json["benchmarks"] == {"color": both["color"]}
    Path("made/color.json").rename("made/mine.json")
    refused(closeup(*base, "made/mine.json"), "'mine' is none of FG-OVD's benchmarks", "--negatives")
    assert closeup(*base, "made/mine.json", "--negatives", "10").json["benchmarks"] == {"mine": both["color"]}


@pytest.mark.skipif(not (SHARED / "data/fgovd/benchmarks").is_dir(), reason="FG-OVD's files are not here")
def test_pictures_that_are_not_there_are_told_in_a_line(closeup: Run) -> None:
    ran = closeup("evaluate", "finegrained", "--data", f"fgovd:{SHARED}/data/fgovd/benchmarks?split=pattern")
    refused(ran, "is missing", "train2017 and val2017", "images=FOLDER")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "nowhere.json"), "no such file"),
        (("--data", "photos:nowhere"), "Unknown kind of data set 'photos'"),
        (("--data", "folder:photos"), "describes no regions with captions that are wrong in detail"),
        (("--data", "photos"), "holds none of FG-OVD's files"),
        (("--data", "world?negatives=colour"), "Did you mean 'color'?"),
        (("--data", "world", "--limit", "0"), "--limit 0: give at least 1"),
        (("--data", "world", "--negatives", "0"), "--negatives 0: give at least 1"),
        (("--data", "world", "--retrieval", "photos"), "have no captions"),
        (("--data", "world", "--matcher", "nowhere"), "There is no matcher 'nowhere'"),
        (("--data", "world", "--how", "dense", "--scale", "2"), "for crops alone"),
        (("--data", "world", "--out", "photos"), "this is a folder"),
    ],
)
def test_what_cannot_be_measured_is_refused(closeup: Run, photos: Path, words: tuple[str, ...], message: str) -> None:
    refused(closeup("evaluate", "finegrained", *words), message)


def test_a_matcher_is_trained_resumed_and_used(closeup: Run, small_clip: Clip, tmp_path: Path) -> None:
    base = (*LEARN, *BRIEF, "--pairs", PAIRS, "--model", small_clip.name, "--out", "mine")
    refused(closeup(*base, "--resume"), "There is no training to resume")
    ran = closeup(*base, "--resume-if-started", "--json", "--report-limit", "3")
    assert ran.code == 0, ran.err
    figures = ran.json["figures"]
    assert figures.keys() == {"rank", "cosine", "untrained", "warmed_up"}
    assert figures["warmed_up"] != figures["untrained"]
    report = ran.json["report"]
    assert report["data"] == f"{REGIONS}&split=val"
    assert report["matcher"]["benchmarks"]["1_attributes"]["negatives"] == 10
    card = json.loads((tmp_path / "mine" / "card.json").read_text())
    assert card["measured"]["matcher"] == report["matcher"]
    assert (tmp_path / "mine-run" / "finegrained.json").is_file()

    before = files_below(tmp_path)
    refused(closeup(*base), "holds a training already")
    refused(closeup(*base, "--resume", "--kind", "mlp"), "was begun with the config")
    refused(closeup(*base, "--resume", "--rate", "0.5"), "was begun with rate")
    assert files_below(tmp_path) == before
    again = closeup(*base, "--resume", "--report", "none")
    assert again.code == 0, again.err
    assert f"after the warm-up {figures['warmed_up']:.4f}, best {figures['rank']:.4f}" in again.out
    assert "Hard" not in again.out
    measured = closeup(
        "evaluate", "finegrained", "--data", f"{REGIONS}&split=val", "--model", small_clip.name, "--matcher", "mine",
        "--json",
    )  # fmt: skip
    assert measured.json["mean_rank"] == pytest.approx(figures["rank"])


@pytest.mark.parametrize("kind", [None, "linear-text", "residual"])
def test_what_is_kept_needs_no_warm_up(closeup: Run, small_clip: Clip, kind: str | None) -> None:
    more = () if kind is None else ("--kind", kind)
    ran = closeup(
        *LEARN, "--preset", "keep", "--steps", "4", "--pairs", PAIRS, "--model", small_clip.name, *more,
        "--features", "kept", "--report", "world?count=6&size=96", "--report-limit", "6", "--out", "mine",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "warm-up" not in ran.out
    assert "FG mean rank of matcher" in ran.out
    assert load_matcher("mine").kind == (kind or "residual-mlp")
    assert len(list(Path("kept").glob("[!.]*"))) == 3


def test_without_a_warm_up_no_pairs_are_needed(closeup: Run, small_clip: Clip) -> None:
    ran = closeup(
        *LEARN, "--steps", "3", "--skip-warmup", "--model", small_clip.name, "--report", "none", "--out", "mine",
        "--kind", "residual", "--hardest", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert ran.json["report"] is None
    empty = closeup(
        *LEARN, "--steps", "3", "--skip-warmup", "--model", small_clip.name, "--report", "world?count=1&size=32",
        "--out", "other",
    )  # fmt: skip
    assert empty.code == 0, empty.err
    assert "Written: other" in empty.out
    assert "Not measured: None of 8 records describes a region" in empty.out
    assert ran.json["figures"]["untrained"] == ran.json["figures"]["cosine"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "warms up on captions of whole pictures. Name some as `pairs`"),
        (("--preset", "keep"), "keeps rankings on captions of whole pictures"),
        (("--pairs", PAIRS, "--keep", "1"), "leave one of the two out"),
        (("--kind", "cosine", "--skip-warmup"), "'cosine' has nothing to learn"),
        (("--preset", "tyni"), "Did you mean 'tiny'?"),
        (("--pairs", "voc:nowhere"), "No list of pictures"),
        (("--skip-warmup", "--regions", "nowhere"), "nowhere"),
        (("--skip-warmup", "--regions", "world?count=3&size=64"), "it describes no regions"),
        (("--skip-warmup", "--regions", f"{REGIONS}&split=val"), "is to be learned. Name other regions as `held`"),
        (("--pairs", "photos"), "its pictures have no captions"),
        (("--skip-warmup", "--pair-rate", "1"), "--pair-rate: of the warm-up, which --skip-warmup leaves out"),
        (("--preset", "keep", "--pair-steps", "1"), "has no warm-up to change"),
        (("--skip-warmup", "--hidden", "8"), "`hidden` is 8"),
        (("--skip-warmup", "--batch-size", "0"), "`batch_size` must be at least 1"),
        (("--skip-warmup", "--out", "photos"), "is not a saved model"),
        (("--skip-warmup", "--report-limit", "0"), "--report-limit 0"),
        (("--skip-warmup", "--wrong", "11"), "described regions have fewer than 11 wrong captions"),
    ],
)
def test_what_cannot_be_learned_is_refused_and_leaves_no_training(
    closeup: Run, photos: Path, small_clip: Clip, words: tuple[str, ...], message: str
) -> None:
    refused(closeup(*LEARN, "--model", small_clip.name, "--out", "mine", *words), message)
    assert not Path("mine").exists()
    assert not Path("mine-run/card.json").exists()


def test_validation_sets_lie_beside_training_sets(write: Write) -> None:
    for line, held in (
        ("fgovd:/d/training_sets?split=1_attributes", "fgovd:/d/validation_sets?split=1_attributes"),
        ("fgovd:/d/training_sets/color.json", "fgovd:/d/validation_sets/color.json"),
        ("world?negatives=color&split=train", "world?negatives=color&split=val"),
    ):
        assert held_line(MatcherTraining(line)) == held
        assert held_line(MatcherTraining(line, held="mine.json")) == "mine.json"


def test_another_batch_leaves_the_epochs() -> None:
    _, _, fine = PRESETS["tiny"](1, 1000)
    assert fine.steps == 10 * 4
    smaller = stage_changed(fine, 1000, {"batch_size": 100, "rate": 0.1})
    assert (smaller.steps, smaller.evaluate_every, smaller.batch_size, smaller.rate) == (100, 10, 100, 0.1)
    assert stage_changed(fine, 1000, {"batch_size": 100, "steps": 7}).steps == 7


@pytest.mark.parametrize("verb", ["adapt", "evaluate"])
def test_help_teaches_by_examples(closeup: Run, verb: str) -> None:
    ran = closeup(verb, "finegrained", "--help")
    assert ran.code == 0
    assert f"closeup {verb} finegrained --" in ran.out
    assert "FG-CLIP" in ran.out


def test_a_detector_is_asked_for_captions(closeup: Run) -> None:
    words = ("evaluate", "finegrained", "--data", "world?negatives=color&count=3", "--detector", "tiny-fvit")
    ran = closeup(*words, "--workers", "0", "--json", "--out", "report.json")
    assert ran.code == 0, ran.err
    found = ran.json["benchmarks"]["color"]
    assert found["N"] == 10
    assert 0 < found["found"] <= 1
    assert found["mean_rank_found"] <= found["mean_rank"]
    assert json.loads(Path("report.json").read_text())["benchmarks"]["color"]["summary"]["ap"] == found["ap"]
    told = closeup(*words, "--workers", "0")
    assert "Color" in told.out
    refused = closeup(*words, "--how", "dense")
    assert refused.code == 2
    assert "--how is of a CLIP and true boxes" in refused.err
