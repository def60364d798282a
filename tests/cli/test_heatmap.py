from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import closeup.predict as predict
from closeup.models import Clip
from closeup.text import get_templates
from commands import Run, files_below


def test_one_phrase_on_one_photo(closeup: Run, photo: Path, small_clip: Clip, tmp_path: Path) -> None:
    out = tmp_path / "heat.png"
    ran = closeup(
        "heatmap", "a red star", photo, "--out", out, "--model", small_clip.name, "--precision", "fp32", "--json"
    )
    assert ran.code == 0
    assert ran.json["written"] == [str(out)]
    expected = predict.heatmap(small_clip, photo, ["a red star"], templates=get_templates("name"))
    told = ran.json["photos"][0]["phrases"][0]
    assert told["phrase"] == "a red star"
    assert told["highest"] == pytest.approx(float(expected.cells.max()))
    x, y = told["at"]
    pixels = expected.pixels()[0]
    assert float(pixels[y, x]) == pytest.approx(float(pixels.max()), abs=0.02)
    with PIL.Image.open(out) as picture:
        assert picture.width > 64


def test_several_phrases_clusters_and_arrays(closeup: Run, photos: Path, small_clip: Clip, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = closeup(
        "heatmap", "a dog, grass", photos, "--contrast", "others", "--kmeans", "3", "--model", small_clip.name,
        "--format", "png", "npz", "--out", out,
    )  # fmt: skip
    assert ran.code == 0
    names = [f"{stem}{end}" for stem in ("a", "b", "deep/a") for end in ("-kmeans.png", ".npz", ".png")]
    assert files_below(out) == names
    with np.load(out / "a.npz") as arrays:
        # With two words, taking off the mean leaves one the other's negative.
        np.testing.assert_allclose(arrays["cells"][0], -arrays["cells"][1], atol=1e-6)
    assert "grass" in ran.out
    assert str(out / "deep" / "a-kmeans.png") in ran.out
