"""Where the figures of a training go besides its log: TensorBoard, or any tracker that Accelerate knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import LoggerType

from closeup.errors import ConfigError, suggest

PACKAGES = {"tensorboard": "closeup[tensorboard]", "comet_ml": "comet-ml"}
"""What to install for a tracker, where it is not a package of the same name."""


def check_trackers(names: Sequence[str]) -> None:
    """Raise ConfigError for a tracker that Accelerate does not know, or whose package is not installed."""
    absent = set(LoggerType.list()) - {str(name) for name in get_available_trackers()}
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ConfigError(f"Unknown tracker {name!r}. {suggest(str(name), LOGGER_TYPE_TO_CLASS)}")
        if name in absent:
            raise ConfigError(
                f"The tracker {name!r} needs a package that is not installed. Run: "
                f"pip install '{PACKAGES.get(name, name)}'."
            )


@contextmanager
def tracking(accelerator: Accelerator, run: str, settings: Mapping[str, Any], start: int) -> Iterator[None]:
    """Open the trackers that an accelerator was made with, and close them when the block ends.

    A training that goes on after ``start`` steps takes back what TensorBoard was told of later ones.
    """
    told = {name: value if isinstance(value, (int, float, str)) else str(value) for name, value in settings.items()}
    again = {"tensorboard": {"purge_step": start + 1}} if start else {}
    accelerator.init_trackers(run, config=None if start else told, init_kwargs=again)
    try:
        yield
    finally:
        # Not by Accelerator.end_training: that parts the processes too, which have work left.
        for tracker in accelerator.trackers:
            tracker.finish()
