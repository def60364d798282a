from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from closeup.data.registry import open_reader
from closeup.models import Clip, load
from closeup.models.blend import blend
from closeup.models.mask_prompt import prompts_of
from closeup.predict import evaluate_regions
from closeup.predict.forgetting import evaluate_forgetting
from commands import Run, files_below
from tiny_towers import images

SHORT = (
    "--size", "32", "--steps", "3", "--batch-size", "2", "--rate", "1e-2", "--workers", "0", "--precision", "fp32",
)  # fmt: skip
NO_REPORT = ("--report", "none")
WORLD = "world?count=2&size=64"


def command(photos: object, model: Path, out: object = "adapted", *more: object) -> list[object]:
    return ["adapt", "clipself", "--images", photos, "--model", model, "--out", out, *SHORT, *more]


def read(path: Path) -> Any:  # noqa: ANN401 - whatever a file tells
    return json.loads(path.read_text(encoding="utf-8"))


@torch.no_grad()
def test_photos_without_labels_make_a_model_that_open_clip_loads(
    closeup: Run, photos: Path, small_clip_folder: Path, tmp_path: Path
) -> None:
    ran = closeup(*command(photos, small_clip_folder, "adapted", *NO_REPORT, "--json"))
    assert ran.code == 0, ran.err
    assert ran.json["model"] == "adapted"
    assert ran.json["forgetting"] is None
    adapted, base = load(tmp_path / "adapted", precision="fp32"), load(small_clip_folder, precision="fp32")
    model = open_clip.create_model(f"local-dir:{tmp_path / 'adapted'}").eval()
    pictures = images(32, 32)
    assert torch.allclose(model.encode_image(pictures), adapted.encode_image(pictures), atol=1e-5)
    assert not torch.allclose(base.encode_dense(pictures), adapted.encode_dense(pictures), atol=1e-3)
    assert torch.equal(base.encode_text(["a dog"]), adapted.encode_text(["a dog"]))
    assert not [name for name in files_below(tmp_path) if "/." in name or name.startswith(".")]


def test_the_card_holds_what_it_takes_to_do_it_again(
    closeup: Run, photos: Path, small_clip_folder: Path, small_clip: Clip, tmp_path: Path
) -> None:
    ran = closeup(*command(photos, small_clip_folder, "adapted", *NO_REPORT, "--blocks", "2", "--json"))
    card = read(tmp_path / "adapted" / "card.json")
    assert card["base"] == {"name": str(small_clip_folder), "fingerprint": small_clip.fingerprint}
    assert card["data"] == {"images": str(photos), "split": None, "pictures": 3}
    assert card["config"]["blocks"] == 2
    assert card["training"]["steps"] == 3
    assert card["figures"] == ran.json["figures"]
    assert {"recipe", "preset", "alpha", "trained_on", "versions"} <= card.keys()
    begun = read(tmp_path / "adapted-run" / "card.json")
    assert all(card[name] == begun[name] for name in ("recipe", "base", "data", "preset", "config", "training"))


def test_it_ends_with_gained_and_forgotten(closeup: Run, photos: Path, small_clip_folder: Path, tmp_path: Path) -> None:
    report = ("--report", WORLD, "--report-limit", "2", "--report-close-ups", "12")
    ran = closeup(*command(photos, small_clip_folder, "adapted", *report, "--json"))
    assert ran.code == 0, ran.err
    before, after = load(small_clip_folder, precision="fp32"), load(tmp_path / "adapted", precision="fp32")
    expected = evaluate_forgetting(before, after, open_reader(WORLD), size=32, close_ups=12).to_dict()
    told = ran.json["forgetting"]
    assert told["rows"] == expected["rows"]
    assert told["summary"] == expected["summary"]
    assert read(tmp_path / "adapted-run" / "forgetting.json")["rows"] == expected["rows"]
    assert read(tmp_path / "adapted" / "card.json")["measured"]["gained"] == expected["gained"]
    shown = closeup(*command(photos, small_clip_folder, "adapted", *report, "--resume"))
    assert shown.code == 0, shown.err
    assert "Gained: boxes, things" in shown.out
    assert "Forgotten: zero-shot classification" in shown.out


def test_a_student_may_attend_inside_windows(
    closeup: Run, photos: Path, small_clip_folder: Path, tmp_path: Path
) -> None:
    closeup(*command(photos, small_clip_folder, "plain", *NO_REPORT))
    report = ("--report", WORLD, "--report-limit", "2", "--report-close-ups", "12")
    ran = closeup(*command(photos, small_clip_folder, "windowed", *report, "--window", "2", "--json"))
    assert ran.code == 0, ran.err
    assert read(tmp_path / "windowed" / "card.json")["config"]["window"] == 2
    assert load(tmp_path / "plain").fingerprint != load(tmp_path / "windowed").fingerprint
    before, after = load(small_clip_folder, precision="fp32"), load(tmp_path / "windowed", precision="fp32")
    expected = evaluate_forgetting(before, after, open_reader(WORLD), size=32, close_ups=12, window=2).to_dict()
    assert ran.json["forgetting"]["rows"] == expected["rows"]


def test_a_finished_training_is_blended_anew(
    closeup: Run, photos: Path, small_clip_folder: Path, small_clip: Clip, tmp_path: Path
) -> None:
    assert closeup(*command(photos, small_clip_folder, "adapted", *NO_REPORT)).code == 0
    whole = load(tmp_path / "adapted")
    again = closeup(*command(photos, small_clip_folder, "adapted", *NO_REPORT, "--resume", "--alpha", "0.5"))
    assert again.code == 0, again.err
    expected = blend(small_clip, whole, 0.5)
    assert load(tmp_path / "adapted").fingerprint == expected.fingerprint
    card = read(tmp_path / "adapted" / "card.json")
    assert card["blend"]["adapted"]["fingerprint"] == whole.fingerprint
    assert card["figures"]["loss"] > 0


def test_a_cache_changes_nothing_but_rounding(
    closeup: Run, photos: Path, small_clip_folder: Path, tmp_path: Path
) -> None:
    closeup(*command(photos, small_clip_folder, "plain", *NO_REPORT))
    for name, more in (("kept", ()), ("ahead", ("--precompute",))):
        ran = closeup(*command(photos, small_clip_folder, name, *NO_REPORT, "--cache", "cache", *more))
        assert ran.code == 0, ran.err
    plain = load(tmp_path / "plain").model.state_dict()
    for name in ("kept", "ahead"):
        cached = load(tmp_path / name).model.state_dict()
        assert all(torch.allclose(value, cached[key], atol=5e-3) for key, value in plain.items())
    assert files_below(tmp_path / "cache")


def test_a_training_goes_on_as_it_began(closeup: Run, photos: Path, small_clip_folder: Path, tmp_path: Path) -> None:
    assert closeup(*command(photos, small_clip_folder, "adapted", *NO_REPORT)).code == 0
    before = (tmp_path / "adapted" / "card.json").read_bytes()
    for more, told in (
        ((), "holds a training already"),
        (("--resume", "--blocks", "1"), "begun with the config"),
        (("--resume", "--rate", "1e-3"), "begun with rate"),
        (("--resume", "--images", photos / "a.png"), "begun with the data"),
    ):
        ran = closeup(*command(photos, small_clip_folder, "adapted", *NO_REPORT, *more))
        assert ran.code == 2
        assert told in ran.err
    assert (tmp_path / "adapted" / "card.json").read_bytes() == before


def test_data_sets_are_read_at_their_training_split(closeup: Run, small_clip_folder: Path, tmp_path: Path) -> None:
    ran = closeup(*command(WORLD, small_clip_folder, "adapted", *NO_REPORT, "--regions", "masks", "--dtype", "fp16"))
    assert ran.code == 0, ran.err
    state = read(tmp_path / "adapted" / "card.json")
    assert state["data"] == {"images": WORLD, "split": None, "pictures": 2}


@pytest.mark.filterwarnings("default:left out")
def test_a_broken_photo_is_left_out(closeup: Run, photos: Path, small_clip_folder: Path) -> None:
    (photos / "broken.png").write_bytes(b"no picture")
    ran = closeup(*command(photos, small_clip_folder, "adapted", *NO_REPORT, "--batch-size", "4"))
    assert ran.code == 0, ran.err
    assert "closeup: warning: left out" in ran.err
    assert "broken.png" in ran.err


def test_regions_learn_concepts_mined_from_captions(closeup: Run, photos: Path, tmp_path: Path) -> None:
    """From captions to a list, from the list to a model, with a cache filled ahead and a run begun again."""
    names = sorted(path.name for path in photos.iterdir() if path.suffix == ".png")
    captions = {name: [f"A red {noun} on a table."] for name, noun in zip(names, ("cup", "ball", "box"), strict=False)}
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    mined = closeup("concepts", "captions.json", "--min-count", "1", "--out", "concepts.txt", "--json")
    assert "table" in (tmp_path / "concepts.txt").read_text().split(), mined.err
    pictures = f"folder:{photos}?captions={tmp_path / 'captions.json'}"
    words: list[object] = ["adapt", "regionclip", "--images", pictures, "--concepts", "concepts.txt"]
    words += ["--templates", "simple", "--cache", "cache", "--precompute", *SHORT, *NO_REPORT]
    ran = closeup(*words, "--out", "adapted", "--json")
    assert ran.code == 0, ran.err
    assert {"loss", "contrast", "distill", "image_text", "kept"} <= ran.json["figures"].keys()
    card = read(tmp_path / "adapted" / "card.json")
    assert (card["recipe"], card["config"]["concepts"]) == ("regionclip", "concepts.txt")
    assert load(tmp_path / "adapted").fingerprint != load("tiny").fingerprint
    other = closeup(*words, "--out", "adapted", "--contrast", "0.5", "--resume")
    assert other.code == 2
    assert "begun with the config" in other.err


def regionclip(photos: Path, model: Path, *more: object) -> list[object]:
    return ["adapt", "regionclip", "--images", photos, "--model", model, "--out", "out", *SHORT, *NO_REPORT, *more]


Words = Callable[[Path, Path], list[object]]


def twice(photos: Path) -> Path:
    path = photos / "twice.txt"
    path.write_text("Cat\ndog\ncat\n")
    return path


CASES: dict[str, tuple[Words, str]] = {
    "alpha above 1": (lambda p, m: command(p, m, "out", "--alpha", "2"), "alpha 2 is outside 0 to 1"),
    "unknown preset": (lambda p, m: command(p, m, "out", "--preset", "papr"), "'paper'"),
    "unknown recipe": (lambda p, m: ["adapt", "clipslef", "--images", p], "'clipself'"),
    "unknown regions": (lambda p, m: command(p, m, "out", "--regions", "boxs"), "boxs"),
    "unknown route": (lambda p, m: command(p, m, "out", "--route", "vlaue"), "'value'"),
    "unknown tracker": (lambda p, m: command(p, m, "out", "--tracker", "tensorbord"), "'tensorboard'"),
    "unknown model": (lambda p, m: command(p, Path("ViT-B-61/openai"), "out"), "'ViT-B-16/openai'"),
    "no pictures": (lambda p, m: command(p / "none", m, "out"), "none"),
    "no picture in the folder": (lambda p, m: command(m, m, "out"), "no image"),
    "pictures without boxes": (
        lambda p, m: command(p, m, "out", "--regions", "proposals", "--regions-from", "data"),
        "boxes",
    ),
    "too many blocks": (lambda p, m: command(p, m, "out", "--blocks", "9"), "3 blocks"),
    "no blocks": (lambda p, m: command(p, m, "out", "--blocks", "0"), "`blocks`"),
    "no window": (lambda p, m: command(p, m, "out", "--window", "0"), "`window`"),
    "no steps": (lambda p, m: command(p, m, "out", "--steps", "0"), "`steps`"),
    "out is a file": (lambda p, m: command(p, m, p / "a.png"), "a.png"),
    "out is no model": (lambda p, m: command(p, m, p), "not a saved model"),
    "nothing to cache into": (lambda p, m: command(p, m, "out", "--precompute"), "cache"),
    "nothing to resume": (lambda p, m: command(p, m, "out", "--resume"), "nothing to resume"),
    "report on nothing": (lambda p, m: command(p, m, "out", "--report", "wrold"), "wrold"),
    "no concepts": (lambda p, m: regionclip(p, m), "--concepts"),
    "concepts are nowhere": (lambda p, m: regionclip(p, m, "--concepts", "none.txt"), "none.txt"),
    "concepts twice": (lambda p, m: regionclip(p, m, "--concepts", twice(p)), "the same: 'Cat' and 'cat'"),
    "threshold of 1": (
        lambda p, m: regionclip(p, m, "--concepts", twice(p), "--threshold", "1"),
        "`threshold` from 0 to below 1",
    ),
    "report on photos": (lambda p, m: command(p, m, "out", "--report", p), "no labelled regions"),
}


@pytest.mark.parametrize(("words", "told"), CASES.values(), ids=CASES)
def test_what_is_wrong_is_one_line_and_no_model_is_written(
    closeup: Run, photos: Path, small_clip_folder: Path, tmp_path: Path, words: Words, told: str
) -> None:
    asked = words(photos, small_clip_folder)
    before = files_below(tmp_path)
    ran = closeup(*asked)
    assert ran.code == 2, ran.out
    assert told in ran.err
    assert ran.err.startswith("closeup: error: ")
    assert ran.err.count("\n") == 1
    assert files_below(tmp_path) == before


def test_prompts_follow_the_tower_and_gain_is_counted_on_masked_crops(
    closeup: Run, small_clip_folder: Path, tmp_path: Path
) -> None:
    short = (*SHORT[2:], "--masks-per-picture", "3")
    words = [
        "adapt",
        "maskadapt",
        "--images",
        "world?count=4&size=64&shapes=base",
        "--model",
        small_clip_folder,
        *short,
    ]
    tower = closeup(*words, "--out", "tower", *NO_REPORT)
    assert tower.code == 0, tower.err
    assert prompts_of(load(tmp_path / "tower").tower) is None
    report = ("--report", WORLD, "--report-limit", "2", "--report-close-ups", "12")
    ran = closeup(
        *words, "--preset", "tiny-prompts", "--depth", "2", "--start", "tower", "--out", "both", *report, "--json"
    )
    assert ran.code == 0, ran.err
    before, after = load(small_clip_folder, precision="fp32"), load(tmp_path / "both", precision="fp32")
    prompts = prompts_of(after.tower)
    assert prompts is not None
    assert read(tmp_path / "both" / "card.json")["base"]["fingerprint"] == before.fingerprint
    assert len(prompts.tokens) == 2
    told = ran.json["forgetting"]
    reader = open_reader(WORLD)
    for side, clip, how in (("before", before, "masked-crop"), ("after", after, "mask-prompt")):
        found = evaluate_regions(clip, reader, how=(how,), workers=0)
        rows = {row["measure"]: row[side] for row in told["rows"]}
        assert rows["masked-crop masks, things"] == found.recognition(how, "masks", "things").macro()
    gained = {row["measure"]: row["points"] for row in told["rows"] if row["measure"].startswith("masked-crop ")}
    assert told["gained"] == {name.removeprefix("masked-crop "): points for name, points in gained.items()}
    assert gained.keys() == {"masked-crop masks, things", "masked-crop masks, stuff"}
