from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from closeup.errors import ConfigError
from closeup.recipes.clipself import ClipSelf
from closeup.recipes.clipself_config import ClipSelfConfig
from closeup.recipes.config import TrainConfig
from closeup.recipes.train import train
from tiny_clips import vit_clip
from tiny_pictures import Pictures


class Notebook(GeneralTracker):  # type: ignore[misc]
    """A tracker that writes one JSON object a call."""

    name = "notebook"
    requires_logging_directory = True

    def __init__(self, run_name: str, logging_dir: str) -> None:
        super().__init__()
        self.path = Path(logging_dir) / f"{run_name}.jsonl"

    @property
    def tracker(self) -> Path:
        return self.path

    def _note(self, what: Any) -> None:  # noqa: ANN401 - whatever json holds
        with self.path.open("a") as file:
            file.write(json.dumps(what) + "\n")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self._note(values)

    def log(self, values: dict[str, Any], step: int | None = None, **_: object) -> None:
        self._note({"step": step, **values})

    def finish(self) -> None:
        self._note("finished")


def go(folder: Path, *, resume: bool = False, until: int | None = None, **changes: Any) -> None:  # noqa: ANN401
    settings: dict[str, Any] = {
        "steps": 6,
        "batch_size": 2,
        "rate": 1e-3,
        "precision": "fp32",
        "workers": 0,
        "log_every": 2,
    }
    recipe = ClipSelf(vit_clip(), Pictures(), ClipSelfConfig(size=32, max_split=2))
    train(recipe, TrainConfig(**settings | changes), folder, resume=resume, until=until)


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_tracker_is_told_every_line_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "notebook", Notebook)
    go(tmp_path, trackers=("notebook",), until=4)
    told = lines(tmp_path / "closeup-clipself.jsonl")
    assert told[0]["rate"] == 1e-3
    assert told[0]["betas"] == "(0.9, 0.98)"
    assert [line["step"] for line in told[1:-1]] == [2, 4]
    for line, logged in zip(told[1:-1], lines(tmp_path / "log.jsonl"), strict=True):
        assert line == pytest.approx(logged, abs=1e-6)
    go(tmp_path, trackers=("notebook",), resume=True)
    again = lines(tmp_path / "closeup-clipself.jsonl")[len(told) :]
    assert [line["step"] for line in again[:-1]] == [6]
    assert told[-1] == again[-1] == "finished"


@pytest.mark.skipif(find_spec("tensorboard") is not None, reason="tensorboard is installed")
def test_a_tracker_that_is_not_installed_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'tensorboard' needs a package .* pip install 'closeup\[tensorboard\]'"):
        go(tmp_path / "run", trackers=("tensorboard",))
    assert not (tmp_path / "run").exists()


def test_tensorboard_reads_the_figures_of_the_log(tmp_path: Path) -> None:
    reading = "tensorboard.backend.event_processing.event_accumulator"
    accumulator = pytest.importorskip(reading, reason="tensorboard is not installed")
    go(tmp_path, trackers=("tensorboard",), until=4)
    go(tmp_path, trackers=("tensorboard",), resume=True)
    events = accumulator.EventAccumulator(str(tmp_path / "closeup-clipself")).Reload()
    expected = {line["step"]: line["loss"] for line in lines(tmp_path / "log.jsonl")}
    assert {event.step: event.value for event in events.Scalars("loss")} == pytest.approx(expected, abs=1e-6)
