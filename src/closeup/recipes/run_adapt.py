"""One adaptation from its options to a folder that open_clip loads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from accelerate import PartialState

from closeup.data.readable import open_album
from closeup.data.record import Reader
from closeup.errors import CloseupError, InputError, ModelError
from closeup.models.blend import blend, blend_card, check_alpha
from closeup.models.changes import save_changes
from closeup.models.checkpoint import mismatches, save_local_dir
from closeup.models.clip import Clip
from closeup.models.load import load
from closeup.models.mask_prompt import give_stored_prompts, prompts_of, stored_prompts
from closeup.recipes.clipself import ClipSelf
from closeup.recipes.regionclip import RegionClip
from closeup.recipes.registry import get_recipe
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

Watch: TypeAlias = Callable[[Iterator[int], int], Iterator[int]]
"""Passes on what comes, and may show how many of a number have come."""


def _unwatched(done: Iterator[int], total: int) -> Iterator[int]:
    return done


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What is adapted, on which pictures, and how: all that it takes to do it again.

    ``images`` is a folder of pictures or any other line that ``open_reader`` opens, at its split ``train`` unless the
    line or ``split`` says otherwise. ``config`` and ``training`` are changes to the recipe's settings and to
    ``TrainConfig``'s in the preset. ``start`` is a model adapted from ``model`` that learning goes on from; the teacher
    is still ``model`` as it was. ``alpha`` is the share of the adapted model in what is saved (``models.blend``).
    ``cache`` is a folder for teacher embeddings, filled before training if ``precompute``. ``dtype`` is that of the
    saved weights; ``form`` is the whole model, which open_clip loads, or only the changes to the base.
    """

    recipe: str
    images: str
    model: str = "tiny"
    start: str | None = None
    split: str | None = None
    preset: str = "paper"
    config: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    alpha: float = 1.0
    cache: Path | None = None
    precompute: bool = False
    dtype: Literal["fp32", "fp16"] = "fp32"
    form: Literal["whole", "changes"] = "whole"

    def reader(self) -> Reader:
        """Open the pictures; one that is broken is left out with a warning, and the next stands in."""
        return open_album(self.images, self.split)


@dataclass(frozen=True, slots=True)
class Adapted:
    """Where the model lies, the last figures of the log, and whether this is the process that saved it."""

    folder: Path
    figures: dict[str, float]
    main: bool


def adapt(wanted: Adaptation, out: str | Path, *, resume: bool = False, watch: Watch = _unwatched) -> Adapted:
    """Adapt a model and save it at ``out`` in open_clip's local-dir form (or as ``form`` says), with a card.

    The log, the card and the state to resume from are kept in ``out`` with ``-run`` added to its name. Resuming a
    training that is finished saves it again, with another ``alpha`` or ``dtype`` if so wanted. ``watch`` sees the
    pictures of whose regions the teacher's embeddings are precomputed.

    Raises:
        InputError: unknown names, an alpha outside 0 to 1, no pictures, an ``out`` that is no folder for a model, or
            a training that is there already.
        ConfigError: settings outside their range, or other ones than those of the training that is resumed.
        DataError: nothing to resume from, or pictures without the regions that are asked for.
        ModelError: the model is unknown.
        CloseupError: a file cannot be written; what was saved before stays.
    """
    out = Path(out)
    entry = get_recipe(wanted.recipe)
    check_alpha(wanted.alpha)
    check_output(out)
    if wanted.precompute and wanted.cache is None:
        raise InputError("There is no folder to keep teacher embeddings in. Give the cache as well.")
    reader = wanted.reader()
    config, training = entry.settings(wanted.preset, len(reader), wanted.config, wanted.training)
    here = PartialState(cpu=not torch.accelerator.is_available())
    precision = "fp32" if training.precision == "fp32" else "auto"
    clip = load(wanted.model, device=here.device, precision=precision)
    # A recipe may add parameters to the model, so what it is made from is told first.
    base = {"name": wanted.model, "fingerprint": clip.fingerprint}
    recipe = entry.build(clip, reader, config, seed=training.seed, cache=wanted.cache)
    start = _take_over(clip, wanted.start)
    card = {
        "recipe": wanted.recipe,
        "base": base,
        **start,
        "data": {"images": wanted.images, "split": wanted.split, "pictures": len(reader)},
        "preset": wanted.preset,
        "config": config.to_dict(),
        "training": asdict(training),
    }
    # What cannot be done is found here, before anything is written.
    recipe.sample(0)
    check_shares(recipe, training, here.num_processes)
    ahead: Iterator[int] = iter(())
    if wanted.precompute and isinstance(recipe, ClipSelf | RegionClip):
        ahead = recipe.precompute(workers=training.workers, rank=here.process_index, world=here.num_processes)
    if resume and is_started(out):
        before = read_card(run_folder(out))
        # A setting that is newer than the run is at what it does when nothing is said about it.
        check_same({**before, "config": {**type(config)().to_dict(), **before.get("config", {})}}, card, out)
    elif here.is_main_process and not resume and not is_started(out):
        write_card(run_folder(out), {**card, **surroundings()})
    if wanted.precompute:
        for _ in watch(ahead, -(-len(reader) // here.num_processes)):
            pass
        here.wait_for_everyone()
    finished = train(recipe, training, run_folder(out), resume=resume)
    figures = finished.figures or last_logged(out)
    if here.is_main_process:
        try:
            _save(clip, wanted, out, {**card, "alpha": wanted.alpha, "figures": figures, **surroundings()})
        except OSError as error:
            raise CloseupError(
                f"Cannot write the model to {out}: {error.strerror or error}. What was learned is kept in "
                f"{run_folder(out)}: free some space, then resume."
            ) from error
    return Adapted(out, figures, here.is_main_process)


def _take_over(clip: Clip, start: str | None) -> dict[str, Any]:
    """Copy the weights that learning starts from into a model whose teacher is made, and return what a card says."""
    if start is None:
        return {}
    begun = load(start, device=clip.device)
    theirs = begun.model.state_dict()
    if prompts_of(clip.tower) is None:
        give_stored_prompts(clip.tower, theirs, repr(start))
    ours = clip.model.state_dict()
    # New prompts stay where the model to start from has none.
    theirs = {**stored_prompts(ours), **theirs}
    problems = mismatches(ours, theirs)
    if problems:
        raise ModelError(f"{start!r} was not adapted from {clip.name!r}: {'; '.join(problems[:3])}.")
    clip.model.load_state_dict(theirs)
    return {"start": {"name": start, "fingerprint": begun.fingerprint}}


def _save(clip: Clip, wanted: Adaptation, out: Path, card: Mapping[str, Any]) -> None:
    clip.name = out.name
    clip.model.requires_grad_(True).eval()
    saved, told = clip, {"name": out.name, **card}
    base = load(wanted.model, device=clip.device, precision=clip.precision) if _needs_base(wanted) else clip
    if wanted.alpha != 1:
        saved, told = blend(base, clip, wanted.alpha), told | {"blend": blend_card(base, clip, wanted.alpha)}
    if wanted.form == "changes":
        save_changes(saved, base, out, told, dtype=wanted.dtype)
    else:
        save_local_dir(saved, out, told, dtype=wanted.dtype)


def _needs_base(wanted: Adaptation) -> bool:
    return wanted.alpha != 1 or wanted.form == "changes"
