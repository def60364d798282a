from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from closeup.data.registry import open_reader
from closeup.heads.dense_predictor import load_dense_predictor, new_dense_predictor, save_dense_predictor
from closeup.heads.folder import head_folder
from closeup.models import load, save_local_dir
from closeup.predict.dense_predictor import DensePredictorScorer
from closeup.predict.evaluate_segmentation import evaluate_scorer
from closeup.predict.segment import segment_by
from commands import Ran, Run, files_below, write_photo
from tiny_towers import randomise

WORDS = ("sky", "sign symbol", "car")
SMALL: dict[str, Any] = {
    "channels": 16, "hidden": 16, "contexts": 2, "decoder_width": 16, "decoder_heads": 2, "decoder_layers": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, clip = tmp_path_factory.mktemp("heads"), load("tiny", device="cpu", precision="fp32")
    made = {}
    for name in ("post", "pre"):
        config = {**SMALL, "prompts": name}
        head = new_dense_predictor(clip, WORDS, (False,) * 3, templates="simple", size=48, config=config)
        randomise(head.head, 0)
        made[name] = save_dense_predictor(head, folder / name)
    return made


def write_streets(root: Path, splits: tuple[str, ...] = ("train", "val"), names: tuple[str, ...] = WORDS) -> Path:
    """Write a data set of label maps: three pictures a split, whose left half is of one class, the rest of others."""
    for number, split in enumerate(splits):
        for seed in range(3):
            write_photo(root / "images" / split / f"street{seed}.png", (48, 64), 10 * number + seed)
            labels = np.full((48, 64), 2, dtype=np.uint8)
            labels[:, :32] = seed % 2
            labels[:4] = 255
            path = root / "labels" / split / f"street{seed}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(labels).save(path)
    (root / "names.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    return root


def spoil(labels: Path, value: int = 77) -> None:
    """Give a label map's last pixel an id that means nothing."""
    with PIL.Image.open(labels) as picture:
        ids = np.array(picture)
    ids[-1, -1] = value
    PIL.Image.fromarray(ids).save(labels)


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    return write_streets(tmp_path / "streets")


def refused(ran: Ran, *parts: str) -> None:
    assert ran.code == 2, ran.out
    # A training may have drawn its bar by then.
    assert [line.startswith("closeup: error") for line in ran.err.splitlines() if "closeup" in line] == [True], ran.err
    for part in parts:
        assert part in ran.err, ran.err


@pytest.mark.parametrize(
    ("more", "words", "given"),
    [
        ((), None, {}),
        (("--words", "Car, sky"), ("Car", "sky"), {}),
        (("--window", "24", "--stride", "16"), None, {"window": 24, "stride": 16}),
        (("--scales", "0.5", "1.5", "--mirrored"), None, {"scales": (0.5, 1.5), "mirrored": True}),
    ],
)
def test_segmenting_is_that_of_python(
    closeup: Run,
    photo: Path,
    heads: dict[str, Path],
    more: tuple[str, ...],
    words: tuple[str, ...] | None,
    given: dict[str, Any],
) -> None:
    ran = closeup(
        "segment", photo, "--method", "denseclip", "--head", heads["post"], *more, "--precision", "fp32",
        "--out", "out", "--format", "npz", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert ran.err == ""
    scorer = DensePredictorScorer(load_dense_predictor(heads["post"], device="cpu", precision="fp32"), **given)
    expected = segment_by(scorer, photo, words)
    assert ran.json["words"] == list(words or WORDS)
    with np.load("out/photo.npz") as arrays:
        assert torch.equal(torch.from_numpy(arrays["label_map"]), expected.label_map)


def test_a_background_is_a_word_of_the_head(closeup: Run, photo: Path, heads: dict[str, Path]) -> None:
    base = ("segment", photo, "--method", "denseclip", "--head", heads["post"], "--json")
    assert closeup(*base, "--words", "car", "--background", "sky").json["words"] == ["car", "sky"]
    assert closeup(*base, "--background", "Sky").json["words"] == list(WORDS)
    refused(closeup(*base, "--words", "car", "--background", "street"), "'street' is not among the 3")


def test_only_prompts_that_see_the_picture_need_a_clip(
    closeup: Run, photo: Path, heads: dict[str, Path], tmp_path: Path
) -> None:
    copy = save_local_dir(load("tiny", device="cpu", precision="fp32"), tmp_path / "copy")
    base = ("segment", photo, "--method", "denseclip", "--json", "--head")
    assert closeup(*base, heads["pre"]).json == closeup(*base, heads["pre"], "--model", copy).json | {"model": "tiny"}
    refused(closeup(*base, heads["post"], "--model", copy), f"--model {copy}", "holds its own image tower")
    refused(closeup(*base, heads["pre"], "--model", "tiny-clipself"), "was trained on 'tiny'")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--head", "nowhere"), "it is no trained head: see closeup train, or closeup adapt denseclip"),
        (("--head", "tiny-catseg"), "a head of the kind 'catseg', and 'denseclip' is wanted"),
        (("--head", "POST", "--words", "lorry, sky"), "The word 'lorry' is not among the 3 that"),
        (("--head", "POST", "--words", "sky, cars"), "Did you mean 'car'?"),
        (("--head", "POST", "--templates", "openai-80"), "'openai-80' cannot be put around them now"),
        (("--head", "POST", "--size", "64"), "looks at photos at the size of its head"),
        (("--head", "POST", "--route", "attention"), "--route attention is an option of --method dense"),
        (("--head", "POST", "--windows"), "--windows is an option of --method catseg, not denseclip"),
        (("--head", "POST", "--stride", "8"), "--stride 8 without a --window"),
        (("--head", "POST", "--scales", "1", "0"), "must be positive numbers"),
        (("--head", "POST", "--method", "catseg"), "a head of the kind 'denseclip', and 'catseg' is wanted"),
        (("--method", "catseg", "--mirrored"), "--mirrored is an option of --method denseclip, not catseg"),
        (("--method", "maskclip", "--window", "8"), "--window is an option of --method dense or denseclip, not"),
        (("--method", "dense", "--head", "POST"), "--head is an option of --method catseg or denseclip, not dense"),
        (("--method", "catseg", "NO WORDS"), "--words is missing"),
        (("--method", "dense", "NO WORDS"), "--words is missing"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(
    closeup: Run, photo: Path, heads: dict[str, Path], more: tuple[str, ...], message: str
) -> None:
    given = [str(heads["post"]) if word == "POST" else word for word in more if word != "NO WORDS"]
    closed = "--method" not in given
    words = [] if closed or "NO WORDS" in more else ["--words", "sky, car"]
    refused(closeup("segment", photo, *(["--method", "denseclip"] if closed else []), *given, *words), message)
    assert not Path("out").exists()


def test_a_damaged_head_is_told(closeup: Run, photo: Path, heads: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(heads["post"], tmp_path / "damaged")
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "words": [*WORDS, "more"]}))
    refused(closeup("segment", photo, "--method", "denseclip", "--head", folder), "do not fit their card")


def test_a_data_set_is_measured_in_the_names_that_both_know(
    closeup: Run, heads: dict[str, Path], streets: Path
) -> None:
    (streets / "names.txt").write_text("Car\nsky\nsign_symbol\n", encoding="utf-8")
    base = ("evaluate", "segmentation", "--method", "denseclip", "--head", heads["post"], "--precision", "fp32")
    ran = closeup(*base, "--data", f"labelmaps:{streets}", "--json", "--out", "report.json")
    assert ran.code == 0, ran.err
    scorer = DensePredictorScorer(load_dense_predictor(heads["post"], device="cpu", precision="fp32"))
    report = evaluate_scorer(scorer, open_reader(f"labelmaps:{streets}"))
    assert ran.json["miou"] == report.summary()["miou"]
    assert ran.json["provenance"]["settings"]["head"] == str(heads["post"])
    assert json.loads(Path("report.json").read_text())["miou"] == ran.json["miou"]
    assert "miou" in closeup(*base, "--data", f"labelmaps:{streets}").out


def test_names_that_the_head_does_not_know_are_told(closeup: Run, heads: dict[str, Path], streets: Path) -> None:
    (streets / "names.txt").write_text("car\nsky\nroad\n", encoding="utf-8")
    base = ("evaluate", "segmentation", "--method", "denseclip", "--head", heads["post"])
    told = closeup(*base, "--data", f"labelmaps:{streets}")
    refused(told, "The names of the data set do not do as words", "'road' is not among the 3")
    words = closeup(*base, "--data", f"labelmaps:{streets}", "--words", "car, sky, sign symbol", "--json")
    assert words.code == 0, words.err
    templates = closeup(*base, "--data", f"labelmaps:{streets}", "--templates", "vild-14")
    refused(templates, "'vild-14' cannot be put around them")


def short(images: object, *more: object) -> list[object]:
    """Return the words of a training of two steps."""
    return [
        "adapt", "denseclip", "--images", images, "--preset", "tiny", "--size", "32", "--contexts", "2", "--steps", "2",
        "--batch-size", "2", "--precision", "fp32", "--workers", "0", "--out", "mine", *more,
    ]  # fmt: skip


def test_a_training_ends_with_what_it_does_on_held_out_pictures(closeup: Run, streets: Path) -> None:
    line = f"labelmaps:{streets}"
    ran = closeup(*short(line, "--json"))
    assert ran.code == 0, ran.err
    scorer = DensePredictorScorer(load_dense_predictor("mine", device="cpu", precision="fp32"))
    report = evaluate_scorer(scorer, open_reader(line, "val"))
    measured = ran.json["measured"]
    assert measured == {"data": f"{line}?split=val", "limit": 200, "images": 3, **report.summary()}
    assert json.loads(Path("mine/card.json").read_text())["measured"] == measured
    assert json.loads(Path("mine-run/segmentation.json").read_text())["miou"] == measured["miou"]
    assert files_below(Path("mine")) == ["card.json", "head.safetensors"]
    said = closeup(*short(line, "--resume", "--report", f"{line}?split=train", "--report-limit", "2"))
    assert said.code == 0, said.err
    assert f"On 2 pictures of {line}?split=train: miou 0." in " ".join(said.out.split())


def test_a_report_is_left_out_where_nothing_is_held_out(closeup: Run, tmp_path: Path) -> None:
    alone = f"labelmaps:{write_streets(tmp_path / 'alone', ('train',))}"
    ran = closeup(*short(alone))
    assert ran.code == 0, ran.err
    assert "Not measured" in ran.out
    flat = tmp_path / "flat"
    write_streets(flat, (".",))
    ran = closeup(*short(f"labelmaps:{flat}", "--out", "flat-head", "--json"))
    assert ran.code == 0, ran.err
    assert ran.json["measured"] is None
    both = f"labelmaps:{write_streets(tmp_path / 'both')}"
    assert closeup(*short(f"{both}?split=val", "--out", "val-head", "--json")).json["measured"] is None
    assert closeup(*short(both, "--report", "none", "--out", "no-head", "--json")).json["measured"] is None


def test_a_report_that_cannot_be_is_told_before_anything_is_trained(
    closeup: Run, streets: Path, photos: Path, tmp_path: Path
) -> None:
    other = write_streets(tmp_path / "other", names=("sky", "sign symbol", "lorry"))
    line = f"labelmaps:{streets}"
    refused(closeup(*short(line, "--report", f"labelmaps:{other}")), "'lorry' is not among the 3 that 'mine' learned")
    refused(closeup(*short(line, "--report", photos)), "no label maps to measure on")
    refused(closeup(*short(line, "--report", "labelmaps:nowhere")), "nowhere")
    refused(closeup(*short(line, "--report-limit", "0")), "--report-limit 0")
    assert not Path("mine").exists()
    assert not Path("mine-run").exists()


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # where there is one core
@pytest.mark.parametrize("workers", ["0", "2"])
def test_an_id_that_means_nothing_ends_a_training(closeup: Run, streets: Path, workers: str) -> None:
    # The first picture is fine, so that the training begins, and its workers meet the others.
    for seed in (0, 1, 2):
        labels = streets / "labels" / "train" / f"street{seed}.png"
        kept = labels.read_bytes()
        spoil(labels)
        ran = closeup(*short(f"labelmaps:{streets}", "--steps", "8", "--workers", workers, "--out", f"mine{seed}"))
        refused(ran, str(labels), "holds the ids [77]", "0 to 2", "[255]")
        assert not Path(f"mine{seed}").exists()
        labels.write_bytes(kept)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_an_id_that_means_nothing_ends_an_evaluation(
    closeup: Run, streets: Path, heads: dict[str, Path], workers: str
) -> None:
    labels = streets / "labels" / "val" / "street2.png"
    spoil(labels, 9)
    base = ("evaluate", "segmentation", "--data", f"labelmaps:{streets}", "--workers", workers, "--out", "r.json")
    refused(closeup(*base, "--method", "denseclip", "--head", heads["post"]), str(labels), "holds the ids [9]")
    assert not Path("r.json").exists()


def test_the_list_of_models_tells_where_heads_come_from(closeup: Run) -> None:
    assert "closeup adapt denseclip write" in " ".join(closeup("models", "ViT-B-16/openai").out.split())
    assert head_folder("tiny-catseg").is_dir()
