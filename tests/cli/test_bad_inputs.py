"""Whatever is wrong with what the user gives: one line that names it, exit code 2, and nothing written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from closeup.data.rle import encode_mask
from closeup.models import load, save_local_dir
from closeup.models.checkpoint import WEIGHTS
from commands import Run, files_below, write_photo
from tiny_clips import vit_clip


class Place:
    """A folder with a photo, an output folder that does not exist yet, and a model."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.model = model
        self.out = folder / "out"
        self.photo = write_photo(folder / "photo.png")

    def file(self, name: str, content: str | bytes | object) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    def segment(self, *photos: object, words: object = "dog, grass", out: object = None) -> list[object]:
        named = photos or (self.photo,)
        return ["segment", *named, "--words", words, "--model", self.model, "--out", out or self.out]

    def classify(self, regions: object, *more: object) -> list[object]:
        path = regions if isinstance(regions, Path) else self.file("regions.json", regions)
        words = ["--words", "dog, grass", "--model", self.model, "--out", self.out]
        return ["classify", self.photo, "--regions", path, *words, *more]

    def evaluate(self, what: str, data: object, *more: object) -> list[object]:
        report = ["--out", self.out / "report.json", "--workers", "0", "--size", "32"]
        return ["evaluate", what, "--data", data, "--model", self.model, *report, *more]

    def labelmaps(self, value: int) -> str:
        """Write a data set of one photo and three classes, whose label map holds a value; return its line."""
        write_photo(self.folder / "maps" / "images" / "a.png", (8, 8))
        (self.folder / "maps" / "labels").mkdir()
        PIL.Image.fromarray(np.full((8, 8), value, np.uint8)).save(self.folder / "maps" / "labels" / "a.png")
        self.file("maps/names.txt", "dog\ncat\ngrass\n")
        return f"labelmaps:{self.folder / 'maps'}"

    def broken_model(self, kind: str) -> Path:
        """Copy the model and spoil the copy."""
        copy = self.folder / kind
        shutil.copytree(self.model, copy)
        if kind == "truncated":
            (copy / WEIGHTS).write_bytes((copy / WEIGHTS).read_bytes()[:5000])
        elif kind == "foreign":
            other = save_local_dir(vit_clip(width=16), self.folder / "other")
            shutil.copy(other / WEIGHTS, copy / WEIGHTS)
        else:
            (copy / WEIGHTS).unlink()
        return copy


def mask(height: int, width: int, filled: bool = True) -> dict[str, Any]:
    return {"segmentation": encode_mask(np.full((height, width), filled))}


Case = tuple[Callable[[Place], list[object]], str]

CASES: dict[str, Case] = {
    "missing file": (lambda p: p.segment(p.folder / "gone.png"), "gone.png"),
    "not an image": (lambda p: p.segment(p.file("text.png", "hello")), "text.png"),
    "empty file": (lambda p: p.segment(p.file("empty.jpg", b"")), "empty.jpg"),
    "truncated image": (lambda p: p.segment(p.file("cut.png", p.photo.read_bytes()[:600])), "cut.png"),
    "glob without a match": (lambda p: p.segment(f"{p.folder}/*.webp"), "*.webp"),
    "folder without images": (lambda p: p.segment(p.file("texts/a.txt", "a").parent), "texts"),
    "no photo": (lambda p: ["segment", "--words", "dog", "--out", p.out], "No photos"),
    "photo would be replaced": (lambda p: p.segment(out=p.folder), "photo.png"),
    "one picture for many photos": (
        lambda p: p.segment(p.photo, write_photo(p.folder / "b.png"), out=p.folder / "out.png"),
        "out.png",
    ),
    "an array file for an output folder": (lambda p: p.segment(out=p.folder / "out.npz"), "out.npz"),
    "arrays into one picture": (
        lambda p: [*p.segment(out=p.folder / "out.png"), "--format", "png", "npz"],
        "--format png npz",
    ),
    "output is a file": (lambda p: p.segment(out=p.file("taken", "x")), "taken"),
    "output below a file": (lambda p: p.segment(out=p.file("taken", "x") / "deep"), "taken"),
    "empty words": (lambda p: p.segment(words=" "), "--words"),
    "an empty word": (lambda p: p.segment(words="dog,,grass"), "Name 1"),
    "equal words": (lambda p: p.segment(words="dog, grass, Dog"), "'dog'"),
    "words file missing": (lambda p: p.segment(words=p.folder / "words.txt"), "words.txt"),
    "words file empty": (lambda p: p.segment(words=p.file("words.txt", "# nothing\n")), "words.txt"),
    "words file not json": (lambda p: p.segment(words=p.file("words.json", "{")), "words.json"),
    "words file without categories": (lambda p: p.segment(words=p.file("words.json", {"a": 1})), "categories"),
    "unknown templates": (lambda p: [*p.segment(), "--templates", "openai-81"], "'openai-80'"),
    "unknown model": (lambda p: [*p.segment(), "--model", "ViT-B-61/openai"], "'ViT-B-16/openai'"),
    "unknown tag": (lambda p: [*p.segment(), "--model", "ViT-B-16/opnai"], "'openai'"),
    "model folder without a model": (lambda p: [*p.segment(), "--model", p.folder], "open_clip_config.json"),
    "truncated checkpoint": (lambda p: [*p.segment(), "--model", p.broken_model("truncated")], "truncated"),
    "weights of another tower": (lambda p: [*p.segment(), "--model", p.broken_model("foreign")], "visual"),
    "model without weights": (lambda p: [*p.segment(), "--model", p.broken_model("bare")], "bare"),
    "checkpoint missing": (lambda p: [*p.segment(), "--model", p.folder / "gone.pt"], "gone.pt"),
    "unknown route": (lambda p: [*p.segment(), "--route", "vlaue"], "'value'"),
    "unknown precision": (lambda p: [*p.segment(), "--precision", "fp8"], "fp8"),
    "unknown device": (lambda p: [*p.segment(), "--device", "gpu7"], "gpu7"),
    "size not positive": (lambda p: [*p.segment(), "--size", "0"], "--size 0"),
    "size not a number": (lambda p: [*p.segment(), "--size", "big"], "big"),
    "window not positive": (lambda p: [*p.segment(), "--window", "-4"], "--window -4"),
    "stride alone": (lambda p: [*p.segment(), "--stride", "8"], "--stride 8"),
    "stride beyond the window": (lambda p: [*p.segment(), "--window", "8", "--stride", "16"], "--stride 16"),
    "threshold above 1": (lambda p: [*p.segment(), "--background", "1.5"], "1.5"),
    "threshold not a number": (lambda p: [*p.segment(), "--background", "nan"], "nan"),
    "unknown format": (lambda p: [*p.segment(), "--format", "gif"], "gif"),
    "unknown option": (lambda p: [*p.segment(), "--widnow", "8"], "--widnow"),
    "regions file missing": (lambda p: p.classify(p.folder / "gone.json"), "gone.json"),
    "regions not json": (lambda p: p.classify("[[1, 2"), "regions.json"),
    "regions of no known form": (lambda p: p.classify({"boxen": []}), "boxen"),
    "regions without a box": (lambda p: p.classify([{"category_id": 1}]), "bbox"),
    "no region": (lambda p: p.classify([]), "no region"),
    "coco file lacks a table": (lambda p: p.classify({"images": [], "annotations": []}), "categories"),
    "coco file with NaN for a width": (
        lambda p: p.classify(
            '{"images": [{"id": 1, "file_name": "photo.png"}], "categories": [{"id": 1, "name": "dog"}],'
            ' "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, NaN, 9]}]}'
        ),
        "annotations[0]",
    ),
    "panoptic file without its folder": (
        lambda p: p.classify(
            {
                "images": [{"id": 1, "file_name": "photo.png"}],
                "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": []}],
                "categories": [{"id": 1, "name": "dog", "isthing": 1}],
            }
        ),
        "folder of the json's name",
    ),
    "coco file of other photos": (
        lambda p: p.classify({"images": [{"id": 1, "file_name": "x.png"}], "annotations": [], "categories": []}),
        "photo.png",
    ),
    "NaN in a box": (lambda p: p.classify("[[0, 0, NaN, 9]]"), "box 0"),
    "boxes are xywh": (lambda p: p.classify([[0, 0, 40, 40], [30, 30, 20, 10]]), "x, y, width, height"),
    "box without area": (lambda p: p.classify([[0, 0, 9, 9], [5, 9, 5, 20]]), "box 1"),
    "box outside the image": (lambda p: p.classify([[100, 100, 120, 120]]), "100, 100, 120, 120"),
    "box of three numbers": (lambda p: p.classify([[0, 0, 9]]), "(1, 3)"),
    "mask of another size": (lambda p: p.classify([mask(30, 30)]), "[30, 30]"),
    "empty mask": (lambda p: p.classify([mask(48, 64), mask(48, 64, False)]), "mask 1"),
    "masked crops of boxes": (lambda p: p.classify([[0, 0, 9, 9]], "--how", "masked-crop"), "masked-crop"),
    "unknown region encoder": (lambda p: p.classify([[0, 0, 9, 9]], "--how", "corp"), "corp"),
    "no words per region": (lambda p: p.classify([[0, 0, 9, 9]], "--top", "0"), "--top 0"),
    "crop of nothing": (lambda p: p.classify([[0, 0, 9, 9]], "--how", "crop", "--enlarge", "0"), "enlarge"),
    "bare boxes of many photos": (
        lambda p: [*p.classify([[0, 0, 9, 9]])[:1], write_photo(p.folder / "b.png"), *p.classify([[0, 0, 9, 9]])[1:]],
        "2 were given",
    ),
    "no cluster": (
        lambda p: ["heatmap", "dog", p.photo, "--kmeans", "0", "--model", p.model, "--out", p.out],
        "--kmeans 0",
    ),
    "contrast of a single phrase": (
        lambda p: ["heatmap", "dog", p.photo, "--contrast", "others", "--model", p.model, "--out", p.out],
        "'dog'",
    ),
    "unknown kind of data": (lambda p: p.evaluate("regions", "coco-panotpic:/data"), "'coco-panoptic'"),
    "data set missing": (lambda p: p.evaluate("segmentation", f"camvid:{p.folder / 'gone'}"), "gone"),
    "unknown option of data": (lambda p: p.evaluate("regions", "world?cuont=3"), "'count'"),
    "unknown split": (lambda p: p.evaluate("regions", "world", "--split", "vla"), "'val'"),
    "data without words": (lambda p: p.evaluate("regions", p.photo.parent), "no names"),
    "words do not fit the data": (lambda p: p.evaluate("regions", "world", "--words", "dog, cat"), "2 words"),
    "class out of range": (lambda p: p.evaluate("segmentation", p.labelmaps(7)), "7"),
    "data without a name": (lambda p: p.evaluate("regions", " "), "empty name"),
    "workers below none": (lambda p: [*p.evaluate("regions", "world"), "--workers", "-1"], "--workers -1"),
    "sheets into a file": (lambda p: [*p.evaluate("regions", "world"), "--pictures", p.photo], "--pictures"),
    "ignored id below 0": (lambda p: p.evaluate("segmentation", f"{p.labelmaps(0)}?ignore=-1"), "ignore=[-1]"),
    "data without a region": (lambda p: p.evaluate("regions", p.labelmaps(0)), "none of its 1 records"),
    "no record": (lambda p: p.evaluate("regions", "world", "--limit", "0"), "--limit 0"),
    "report is a folder": (
        lambda p: [*p.evaluate("regions", "world"), "--out", p.folder],
        "Name a json file",
    ),
    "world of no split": (lambda p: ["world", "export", p.out, "--split", "vla"], "'val'"),
    "world of no form": (lambda p: ["world", "export", p.out, "--form", "coc"], "'coco'"),
    "world of no scenes": (lambda p: ["world", "show", "--count", "0", "--out", p.out / "w.png"], "--count 0"),
    "world of a negative seed": (lambda p: ["world", "show", "--seed", "-1", "--out", p.out / "w.png"], "`seed`"),
    "no part of a verb": (lambda p: ["world", "shrink"], "'show'"),
    "world in no picture": (lambda p: ["world", "show", "--out", p.out / "w.tar"], "w.tar"),
    "no such model listed": (lambda p: ["models", "ViT-Q-17"], "'ViT-Q-17'"),
    "unknown verb": (lambda p: ["segmnet", p.photo, "--out", p.out], "'segment'"),
}


@pytest.mark.parametrize("name", CASES)
def test_one_line_and_nothing_written(closeup: Run, tmp_path: Path, small_clip_folder: Path, name: str) -> None:
    make, told = CASES[name]
    command = make(Place(tmp_path, small_clip_folder))
    before = files_below(tmp_path)
    ran = closeup(*command)
    assert ran.code == 2, ran.out
    assert ran.err.startswith("closeup: error: ")
    assert ran.err.count("\n") == 1, ran.err
    assert told in ran.err
    assert ran.out == ""
    assert files_below(tmp_path) == before
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(closeup: Run, tmp_path: Path, small_clip_folder: Path) -> None:
    place = Place(tmp_path, small_clip_folder)
    (tmp_path / "closed").mkdir(mode=0o500)
    ran = closeup(*place.segment(out=tmp_path / "closed"))
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "closed" in ran.err


def test_a_message_of_many_lines_becomes_one(closeup: Run, tmp_path: Path, small_clip_folder: Path) -> None:
    odd = tmp_path / "two\nlines.png"
    odd.write_bytes(b"no picture")
    ran = closeup(*Place(tmp_path, small_clip_folder).segment(odd))
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "two lines.png" in ran.err


def test_the_model_of_these_tests_works(small_clip_folder: Path) -> None:
    assert load(small_clip_folder, device="cpu").dim == 24
