"""The verb ``pretrain``: a CLIP from nothing, on pictures with captions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from closeup.cli.fields import Flag, Maybe
from closeup.cli.files import check_folder
from closeup.cli.output import show, show_json
from closeup.errors import InputError
from closeup.recipes.run_pretrain import WORLD, pretrain, tiny_config
from closeup.recipes.runs import is_started


@dataclass(frozen=True)
class Options:
    """Train a CLIP from random weights with the symmetric contrastive loss.

    Without options it makes tiny again, on the embedded world, as it ships: about an hour and a half on two cores
    with bf16 instructions, minutes on a GPU. The log says how many shapes, colours, patterns ... it can name so far.

        closeup pretrain --out my-tiny
        closeup pretrain --out my-tiny --resume
        closeup pretrain --data "coco-captions:/data/coco" --architecture ViT-B-32 --steps 50000 --out my-clip
        accelerate launch -m closeup pretrain --out my-tiny

    The model is a folder that open_clip loads as local-dir:FOLDER; the log and the state to resume from lie beside
    it in a folder of the same name with -run added.
    """

    out: Path
    """The folder of the finished model."""

    data: str = WORLD
    """Pictures with captions: "world", "coco-captions:/data/coco", "folder:photos?captions=sidecar", ..."""

    architecture: str = "tiny"
    """"tiny", or an architecture of open_clip."""

    steps: Maybe[int] = None
    """Optimiser steps; as tiny's unless given, and so the other numbers."""

    batch_size: Maybe[int] = None
    """Pictures in a step, over all processes."""

    rate: Maybe[float] = None
    """The highest learning rate."""

    workers: Maybe[int] = None
    """Processes that draw or read pictures ahead."""

    seed: Maybe[int] = None
    """Seed of the weights and of the order of pictures."""

    resume: Flag = False
    """Go on from the last saved state; an error where there is none."""

    resume_if_started: Flag = False
    """Go on where a state was saved, else begin."""

    json: Flag = False
    """Print one json document at the end."""


def run(options: Options) -> int:
    """Train and save."""
    check_folder(options.out.parent)
    if options.out.is_file():
        raise InputError(f"--out {options.out}: this is a file. Name a folder for the model.")
    given = {
        name: getattr(options, name)
        for name in ("steps", "batch_size", "rate", "workers", "seed")
        if getattr(options, name) is not None
    }
    folder, figures = pretrain(
        options.out,
        architecture=options.architecture,
        data=options.data,
        config=replace(tiny_config(), **given),
        resume=options.resume or (options.resume_if_started and is_started(options.out)),
    )
    if options.json:
        show_json({"model": folder, "figures": figures})
    else:
        show(f"Written: {folder}. Try it: closeup evaluate regions --data world --model {folder}")
    return 0
