from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image

from closeup.data.world import World
from closeup.models import Clip
from closeup.models.windows import Window
from closeup.predict import evaluate_regions, evaluate_segmentation
from commands import Run, files_below, write_photo

DATA = "world?count=2&size=64"


def test_regions_as_in_python(closeup: Run, small_clip: Clip, tmp_path: Path) -> None:
    ran = closeup(
        "evaluate", "regions", "--data", DATA, "--model", small_clip.name, "--precision", "fp32", "--size", "64",
        "--templates", "simple", "--workers", "0", "--out", tmp_path / "report.json",
        "--pictures", tmp_path / "sheets", "--sheets", "1", "--clusters", "3", "--json",
    )  # fmt: skip
    assert ran.code == 0
    assert ran.err == ""
    world = World("val", count=2, size=(64, 64))
    expected = evaluate_regions(small_clip, world, templates="simple", size=64, workers=0)
    assert ran.json["rows"] == expected.table()
    assert ran.json["data"] == DATA
    assert files_below(tmp_path) == ["report.json", "sheets/val-0-000000-kmeans.png"]
    assert json.loads((tmp_path / "report.json").read_text())["rows"] == expected.table()


def test_regions_with_attention_inside_windows(closeup: Run, small_clip: Clip, tmp_path: Path) -> None:
    base = (
        "evaluate", "regions", "--data", DATA, "--model", small_clip.name, "--precision", "fp32", "--size", "64",
        "--templates", "simple", "--workers", "0", "--how", "dense", "--json",
    )  # fmt: skip
    world = World("val", count=2, size=(64, 64))
    windows: tuple[Window, ...] = (2, "native")
    for window in windows:
        ran = closeup(*base, "--window", window, "--pictures", tmp_path / str(window), "--sheets", "1")
        assert ran.code == 0, ran.err
        expected = evaluate_regions(
            small_clip, world, templates="simple", size=64, workers=0, how=["dense"], window=window
        )
        assert ran.json["rows"] == expected.table()
        assert ran.json["provenance"]["settings"]["window"] == window
    sheets = [(tmp_path / name / "val-0-000000-kmeans.png").read_bytes() for name in ("2", "native")]
    assert sheets[0] != sheets[1]
    for wrong, said in (("0", "The window is 0"), ("nativ", "nativ")):
        ran = closeup(*base, "--window", wrong)
        assert ran.code == 2
        assert said in ran.err


def test_regions_as_a_table(closeup: Run, small_clip: Clip) -> None:
    ran = closeup(
        "evaluate", "regions", "--data", "world", "--limit", "1", "--how", "dense", "--model", small_clip.name,
        "--size", "64", "--templates", "simple",
    )  # fmt: skip
    assert ran.code == 0
    assert "1 images of world" in ran.out
    assert "stuff" in ran.out


def test_segmentation_as_in_python(closeup: Run, small_clip: Clip, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("\n".join(f"{name} | {name}s" for name in World.names), encoding="utf-8")
    base = (
        "evaluate", "segmentation", "--data", "world?size=64", "--split", "test", "--limit", "2",
        "--model", small_clip.name, "--precision", "fp32",
    )  # fmt: skip
    ran = closeup(*base, "--json")
    assert ran.code == 0
    expected = evaluate_segmentation(small_clip, World("test", count=2, size=(64, 64)), limit=2)
    assert ran.json["miou"] == expected.summary()["miou"]
    assert ran.json["images"] == 2
    zero = closeup(*base, "--absent", "zero", "--json")
    assert zero.json["absent"] == "zero"
    assert zero.json["miou"] == expected.summary("zero")["miou"] < ran.json["miou"]
    wrong = closeup(*base, "--absent", "none")
    assert wrong.code == 2
    assert "none" in wrong.err
    table = closeup(*base, "--words", words, "--out", tmp_path / "deep" / "report.json")
    assert table.code == 0
    assert "miou" in table.out
    assert (tmp_path / "deep" / "report.json").is_file()


def test_segmentation_in_the_words_of_a_list(closeup: Run, small_clip: Clip, tmp_path: Path) -> None:
    write_photo(tmp_path / "images" / "street.png", (48, 64))
    (tmp_path / "labels").mkdir()
    ids = np.random.default_rng(0).integers(0, 10, (48, 64), dtype=np.uint8)
    PIL.Image.fromarray(ids).save(tmp_path / "labels" / "street.png")
    base = (
        "evaluate", "segmentation", "--data", f"labelmaps:{tmp_path}?names=cityscapes-19", "--model", small_clip.name,
        "--precision", "fp32", "--size", "64", "--absent", "zero",
    )  # fmt: skip
    ran = closeup(*base, "--words", "cityscapes-19", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["miou"] == closeup(*base, "--json").json["miou"]
    table = closeup(*base)
    assert "or are found, with 0" in table.out
    wrong = closeup(*base, "--words", "voc-20")
    assert wrong.code == 2
    assert "20 words for 19 names" in wrong.err
