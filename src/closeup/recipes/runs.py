"""Where a training keeps what it needs to go on, and what its card says about it."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from closeup.data.atomic import replacing
from closeup.errors import ConfigError, DataError, InputError
from closeup.models.checkpoint import CARD, check_replaceable
from closeup.recipes.log import LOG, read_log
from closeup.recipes.state import has_state

SAME = ("recipe", "base", "start", "data", "words", "novel", "config")
"""What of its card a resumed training must share with its beginning; its rhythm is the loop's own affair."""


def run_folder(out: Path) -> Path:
    """Return where the log and the state of a training to ``out`` are kept."""
    return out.with_name(out.name + "-run")


def is_started(out: Path) -> bool:
    """Tell whether there is a state to resume from."""
    return has_state(run_folder(out))


def check_output(out: Path) -> None:
    """Raise InputError unless a model can be saved at ``out`` when the training is over."""
    if out.is_file() or run_folder(out).is_file():
        raise InputError(f"The output {str(out)!r} is a file. Choose a folder.")
    check_replaceable(out)


def last_logged(out: Path) -> dict[str, float]:
    """Return the figures of the last line of a training's log, none where there is no log."""
    lines = read_log(run_folder(out) / LOG)
    return {name: value for name, value in lines[-1].items() if name != "step"} if lines else {}


def surroundings() -> dict[str, Any]:
    """Return what a card says about the machine and the libraries."""
    cpu = f"{platform.machine()} with {torch.get_num_threads()} threads"
    return {
        "trained_on": torch.cuda.get_device_name() if torch.cuda.is_available() else cpu,
        "versions": {name: version(name) for name in ("closeup", "torch", "open_clip_torch")},
    }


def read_card(folder: Path) -> dict[str, Any]:
    """Return a folder's card, empty where there is none; DataError for one that is not json."""
    path = folder / CARD
    if not path.is_file():
        return {}
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not a json file ({error}).") from error
    return card


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write a folder's card, whole or not at all."""
    with replacing(folder / CARD) as temporary:
        temporary.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], out: Path) -> None:
    """Raise ConfigError where the training in a folder is of something else."""
    now = json.loads(json.dumps(now))
    for name in SAME:
        if before.get(name) != now.get(name):
            then, given = _differing(before.get(name), now.get(name))
            raise ConfigError(
                f"The training in {str(run_folder(out))!r} was begun with the {name} {then} and not {given}. Resume "
                "it with the same options, or choose another folder."
            )


def _differing(before: object, now: object) -> tuple[object, object]:
    """Return two values without the keys in which they agree, if they have keys."""
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        return before, now
    other = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return {key: before.get(key) for key in other}, {key: now.get(key) for key in other}
