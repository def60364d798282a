"""The verb demo: what ships, shown before and after adapting."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest

from commands import Run


def test_both_models_are_shown_and_measured(closeup: Run, tmp_path: Path) -> None:
    ran = closeup("demo", "--out", "shown", "--scenes", "6", "--json")
    assert ran.code == 0, ran.err
    written = [tmp_path / path for path in ran.json["written"]]
    assert {path.parent for path in written} == {tmp_path / "shown", tmp_path / "shown" / "photos"}
    for path in written:
        with PIL.Image.open(path) as drawn:
            assert min(drawn.size) >= 200
    things = {
        (row["model"], row["encoder"]): row["top1"]
        for row in ran.json["rows"]
        if (row["shape"], row["kind"]) == ("boxes", "things")
    }
    assert things["tiny", "crop"] > 0.7 > 0.2 > things["tiny", "dense"]
    assert things["tiny-clipself", "dense"] > 0.7


@pytest.mark.parametrize("wrong", [("--scenes", "0"), ("--models",), ("--models", "no-such-model")])
def test_what_is_not_there_is_said_before_anything_is_written(
    closeup: Run, tmp_path: Path, wrong: tuple[str, ...]
) -> None:
    ran = closeup("demo", "--out", "shown", *wrong)
    assert ran.code == 2
    assert "Traceback" not in ran.err
    assert not list((tmp_path / "shown").rglob("*.png"))
