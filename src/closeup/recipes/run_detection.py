"""One training of a head from its options to a folder; the head itself is made and saved by what is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState

from closeup.data.readable import open_album
from closeup.data.record import Reader
from closeup.data.things import novel_marks, thing_names
from closeup.errors import CloseupError, DataError, InputError, suggest
from closeup.models.load import load
from closeup.recipes.config import fitted
from closeup.recipes.detection import boxes_teach
from closeup.recipes.detection_config import PRESETS, Presets
from closeup.recipes.head_recipe import Headed, HeadRecipe
from closeup.recipes.run_adapt import Adapted
from closeup.recipes.runs import (
    check_output,
    check_same,
    is_started,
    last_logged,
    read_card,
    run_folder,
    surroundings,
    write_card,
)
from closeup.recipes.train import check_shares, train

SEARCHED = 100
"""Pictures in which something to learn from is looked for before anything is written."""


@dataclass(frozen=True, slots=True)
class Maker:
    """How a kind of head is made for a CLIP and its words, saved in a folder with a card, and usually trained."""

    new: Callable[..., Headed]
    save: Callable[..., Path]
    presets: Presets = field(default_factory=lambda: PRESETS)
    stands_on: str | Path | None = None
    """The folder of another head that it cannot do without."""
    grounds: bool = False
    """Whether it learns grounds too, and not things alone."""
    recipe: Callable[..., HeadRecipe] = boxes_teach
    """Gives the recipe of a CLIP, what ``new`` made, a reader, which word each of its labels is, the preset's settings
    of pictures with the changes, and a seed."""


@dataclass(frozen=True, slots=True)
class DetectorTraining:
    """What a detector is trained on, and how: all that it takes to do it again.

    ``images`` is a data set with labelled boxes, at its split ``train`` unless the line or ``split`` says otherwise.
    ``novel`` are words whose boxes are left out; None takes the data set's own, if it has some. ``config``,
    ``training`` and ``head`` are changes to the preset's settings.
    """

    images: str
    model: str = "tiny"
    split: str | None = None
    preset: str = "paper"
    novel: tuple[str, ...] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    head: Mapping[str, Any] = field(default_factory=dict)
    dtype: Literal["fp32", "fp16"] = "fp32"

    def reader(self) -> Reader:
        """Open the pictures; one that is broken is left out with a warning, and the next stands in."""
        return open_album(self.images, self.split)


def detector_words(
    reader: Reader, novel: Sequence[str] | None = None, *, grounds: bool = False
) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    """Return the names of a data set's things, with ``grounds`` all of its names, and which are not to be learned.

    Raises:
        InputError: there are none, a novel word is none of them, or nothing is left to learn.
    """
    words = tuple(reader.names) if grounds else thing_names(reader)
    marks = novel_marks(reader, novel, grounds=grounds)
    if all(marks):
        what = "words" if grounds else "things"
        raise InputError(f"The data set has no {what} to learn: none at all, or every one is novel.")
    return words, marks


def train_detector(wanted: DetectorTraining, out: str | Path, maker: Maker, *, resume: bool = False) -> Adapted:
    """Train a head and save it at ``out`` with a card; the log and the state are kept in ``out`` with ``-run`` added.

    Raises:
        InputError: unknown names, no pictures, or an ``out`` that is no folder for a head.
        ConfigError: settings outside their range, or other ones than those of the training that is resumed.
        DataError: nothing to resume from, or pictures without what the head learns from.
        ModelError: the model is unknown, or has fewer than four blocks.
        CloseupError: a file cannot be written; what was saved before stays.
    """
    out = Path(out)
    check_output(out)
    for below in (wanted.model, maker.stands_on):
        if below is not None and Path(below).resolve() == out.resolve():
            raise InputError(f"The head stands on {str(below)!r}, which is also where it would be saved. Name another.")
    if wanted.preset not in maker.presets:
        raise InputError(f"Unknown preset {wanted.preset!r}. {suggest(wanted.preset, maker.presets)}")
    reader = wanted.reader()
    config, training, head = maker.presets[wanted.preset](len(reader))
    config, training = config.replace(**wanted.config), fitted(training, wanted.training)
    words, novel = detector_words(reader, wanted.novel, grounds=maker.grounds)
    here = PartialState(cpu=not torch.accelerator.is_available())
    clip = load(wanted.model, device=here.device, precision="fp32" if training.precision == "fp32" else "auto")
    torch.manual_seed(training.seed)
    made = maker.new(clip, words, novel, templates=config.templates, size=config.size, config={**head, **wanted.head})
    recipe = maker.recipe(made.eyes, made, reader, _places(reader, words, novel), config, training.seed)
    card = {
        "recipe": recipe.name,
        "base": {"name": wanted.model, "fingerprint": clip.fingerprint, **made.needs},
        "data": {"images": wanted.images, "split": wanted.split, "pictures": len(reader)},
        "words": list(words),
        "novel": list(novel),
        "preset": wanted.preset,
        "config": {**config.to_dict(), "head": {**head, **wanted.head}},
        "training": asdict(training),
    }
    # What cannot be done is found here, before anything is written.
    shown = min(len(reader), SEARCHED)
    if not any(recipe.teaches(recipe.sample(position)) for position in range(shown)):
        raise DataError(
            f"None of the first {shown} pictures of {wanted.images!r} has {recipe.lesson} of a word to learn."
        )
    check_shares(recipe, training, here.num_processes)
    if resume and is_started(out):
        check_same(read_card(run_folder(out)), card, out)
    elif here.is_main_process and not resume and not is_started(out):
        write_card(run_folder(out), {**card, **surroundings()})
    finished = train(recipe, training, run_folder(out), resume=resume)
    figures = finished.figures or last_logged(out)
    if here.is_main_process:
        try:
            maker.save(made, out, {"trained": card, "figures": figures, **surroundings()}, dtype=wanted.dtype)
        except OSError as error:
            raise CloseupError(
                f"Cannot write the head to {out}: {error.strerror or error}. What was learned is kept in "
                f"{run_folder(out)}: free some space, then resume."
            ) from error
    return Adapted(out, figures, here.is_main_process)


def _places(reader: Reader, words: Sequence[str], novel: Sequence[bool]) -> list[int | None]:
    """Return which word each of the reader's labels is, None for grounds and novel ones."""
    learned = {word: place for place, (word, new) in enumerate(zip(words, novel, strict=True)) if not new}
    return [learned.get(name) for name in reader.names]
