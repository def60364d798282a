"""The trainings behind reproductions: one model each, made again from tiny, resumable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from closeup.recipes.run_adapt import Adaptation, adapt
from closeup.recipes.runs import is_started
from closeup.reproduce.run import Wanted

RAW = "tiny"

PICTURES = 108_000
"""Scenes of the world that each model that ships has seen, each once."""
ABLATION_PICTURES = 10_000
"""Scenes for each row of an ablation: enough to tell settings apart, in a tenth of the time."""
ABLATION_SIZE = 128
"""Side of the student's pictures in ablations, unless that is what is varied: half that of the scenes."""
QUICK_SHARE = 2e-4
"""Of the scenes, for a look at whether all of it runs."""


@dataclass(frozen=True, slots=True)
class Training:
    """One model to make: its name, and how it differs from a preset of its recipe."""

    name: str
    pictures: int
    config: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    start: str | None = None
    """The training whose result learning goes on from."""
    recipe: str = "clipself"
    preset: str = "tiny"
    images: str = "world?count={pictures}"

    def adaptation(self, work: Path, *, share: float = 1.0, seed: int = 0) -> Adaptation:
        """Return it as an adaptation; ``share`` of the pictures, for a look at whether all of it runs."""
        pictures = max(8, round(self.pictures * share))
        return Adaptation(
            recipe=self.recipe,
            images=self.images.format(pictures=pictures),
            model=RAW,
            start=None if self.start is None else str(work / self.start),
            preset=self.preset,
            config=dict(self.config),
            training={**self.training, "seed": seed},
            dtype="fp16",
            form="changes",
        )


def made(training: Training, wanted: Wanted) -> str:
    """Make a model, or go on where its training was stopped, and return its folder."""
    out = wanted.work / training.name
    adaptation = training.adaptation(wanted.work, share=QUICK_SHARE if wanted.quick else 1.0)
    adapt(adaptation, out, resume=is_started(out))
    return str(out)
