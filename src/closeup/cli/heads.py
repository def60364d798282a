"""Trained heads as the command line names them, on the CLIP that its options choose."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from closeup.cli.model import ModelOptions
from closeup.errors import InputError
from closeup.heads.dense_predictor import DensePredictor, load_dense_predictor
from closeup.heads.mask_proposer import MaskProposer, load_mask_proposer
from closeup.heads.rpn import Proposer, load_proposer
from closeup.heads.saved import AnyDetector, load_detector
from closeup.heads.segmenter import Segmenter, load_segmenter
from closeup.heads.trained import TrainedHead
from closeup.models import Clip, get_route

Head = TypeVar("Head", bound=TrainedHead)

OWN = "own"
"""In the place of a model's name: the CLIP below a head."""


def open_detector(folder: Path, options: ModelOptions) -> AnyDetector:
    """Load a detector, on the CLIP that its card names unless another place of it is given.

    Raises:
        InputError: another CLIP is given, and the head has no use for it.
    """
    clip = _elsewhere(options)
    return _used(load_detector(folder, device=options.device, precision=options.precision, clip=clip), clip, options)


def open_segmenter(folder: str | Path, options: ModelOptions) -> Segmenter:
    """Load a CAT-Seg, on the CLIP that its card names unless another place of it is given."""
    return load_segmenter(folder, device=options.device, precision=options.precision, clip=_elsewhere(options))


def open_dense_predictor(folder: str | Path, options: ModelOptions) -> DensePredictor:
    """Load a DenseCLIP, which needs a CLIP beside it only where its prompts see the picture.

    Raises:
        InputError: another CLIP is given, and the head has no use for it.
    """
    clip = _elsewhere(options)
    found = load_dense_predictor(folder, device=options.device, precision=options.precision, clip=clip)
    return _used(found, clip, options)


def open_proposer(folder: Path | None, options: ModelOptions) -> Proposer | None:
    """Load a proposer, if one is named."""
    return None if folder is None else load_proposer(folder, device=options.device, precision=options.precision)


def open_mask_proposer(folder: Path, options: ModelOptions) -> MaskProposer:
    """Load a mask proposer."""
    return load_mask_proposer(folder, device=options.device, precision=options.precision)


def looking_clip(proposer: MaskProposer, options: ModelOptions) -> Clip:
    """Return the CLIP that looks at a proposer's masks: its own, or another that the options name."""
    clip = proposer.clip if options.model == OWN else options.load()
    known = clip.tower.routes
    if get_route(options.route).name not in known:
        raise InputError(
            f"--route {options.route}: the {clip.tower.family} tower of {clip.name} knows {', '.join(known)}."
        )
    return clip


def _used(head: Head, clip: Clip | None, options: ModelOptions) -> Head:
    """Return a head; InputError where a CLIP was given that it has no use for."""
    if clip is not None and head.clip is not clip:
        raise InputError(f"--model {options.model}: {head.name!r} holds its own image tower and words. Leave it out.")
    return head


def _elsewhere(options: ModelOptions) -> Clip | None:
    return None if options.model == ModelOptions().model else options.load()
